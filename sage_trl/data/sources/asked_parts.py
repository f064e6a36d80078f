"""Parts of benchmarks that bring their own questions: checks the images, divides the groups among splits."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sage_trl.data.faults import FaultList
from sage_trl.data.images import open_image
from sage_trl.data.pairing import Pairing
from sage_trl.data.sources.base import Part, SourceOptions
from sage_trl.data.sources.division import connected_units, split_units, splits_of
from sage_trl.data.sources.photos import Photo, inspect_photo
from sage_trl.errors import DataError
from sage_trl.records import Defect, Level, Question

LEVEL_OF_PAIR_TYPE: dict[str, Level] = {
    "standard comparison": "standard_comparison",
    "defect identification": "defect_identification",
    "defect diagnosis": "defect_diagnosis",
}


@dataclass(frozen=True)
class Group:
    """One group of a benchmark's questions.

    Attributes:
        name: unique in its source, fit for a relative path.
        dataset: value of the `dataset` field.
        photo: the test image with what is known of its defects; `photo.reference` is its reference.
        level: level of the questions.
        questions: the questions with their answers.
        split: where the source puts it, None if our shares decide.
    """

    name: str
    dataset: str
    photo: Photo
    level: Level
    questions: tuple[Question, ...]
    split: str | None = None


def asked_parts(
    groups: Sequence[Group],
    options: SourceOptions,
    faults: FaultList,
    shares: Mapping[str, float],
    root: Path,
    pairings: Sequence[Pairing] = ("given", "none"),
) -> Iterator[Part]:
    """A part for each group, split by split; groups that share an image, test or reference, are in one split.

    Args:
        groups: what a reader found.
        options: shares of the splits, pairing, cap per split, seed.
        faults: what the reader found at fault; the images' own faults are added.
        shares: the source's default for `options.split_shares`.
        root: of the source.
        pairings: what the source can do.

    Raises:
        DataError: every fault of the root, or a split or pairing that is not there.
    """
    if options.pairing not in (None, *pairings):
        remedy = f"use one of {', '.join(pairings)}: the source names its references"
        raise DataError(f"pairing {options.pairing!r} is none of this source\n  remedy: {remedy}")
    defects = _check_images(groups, faults)
    faults.raise_all(root)
    placed = _with_splits(groups, options.split_shares or shares, options.seed)
    for split in splits_of(shares, placed, options.groups):
        own = [group for group in placed if group.split == split]
        most = options.groups.get(split)
        if most is not None and most < len(own):
            own = [own[index] for index in sorted(random.Random(options.seed).sample(range(len(own)), most))]
        for group in own:
            yield Part(
                name=group.name,
                dataset=group.dataset,
                category=group.photo.category,
                split=split,
                unit=group.photo.physical_unit,
                test=group.photo.path,
                reference=None if options.pairing == "none" else group.photo.reference,
                defects=defects[group.photo.path],
                level=group.level,
                questions=group.questions,
            )


def _check_images(groups: Sequence[Group], faults: FaultList) -> dict[Path, tuple[Defect, ...]]:
    defects: dict[Path, tuple[Defect, ...]] = {}
    references: set[Path] = set()
    for group in groups:
        photo = group.photo
        if photo.path not in defects:
            defects[photo.path] = ()
            with faults.collecting():
                defects[photo.path] = inspect_photo(photo).defects
        if photo.reference is not None and photo.reference not in references:
            references.add(photo.reference)
            if photo.reference not in defects:
                with faults.collecting():
                    open_image(photo.reference)
    return defects


def _with_splits(groups: Sequence[Group], shares: Mapping[str, float], seed: int) -> list[Group]:
    images = [[str(path) for path in (group.photo.path, group.photo.reference) if path] for group in groups]
    unit_of = connected_units(images)
    units: defaultdict[str, Counter[Hashable]] = defaultdict(Counter)
    for group in groups:
        units[unit_of[str(group.photo.path)]][group.dataset, group.photo.category, group.level] += 1
    splits = split_units(units, shares, seed)
    return [group if group.split else replace(group, split=splits[unit_of[str(group.photo.path)]]) for group in groups]


def note_repeated(groups: Sequence[Group], path: Path, faults: FaultList) -> None:
    """A fault for each group whose name an earlier one has: the same questions would be there twice."""
    for name, count in Counter(group.name for group in groups).items():
        if count > 1:
            faults.add(path, None, f"{count} entries for {name!r}", "keep one entry for each image and pair_type")
