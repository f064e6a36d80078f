"""From a source to an AD-PL directory: places the images, lets the author write the questions, moves all into place."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Container, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from sage_trl.data.authoring import Author, Scene, author_by_rule
from sage_trl.data.checks.answers import answer_faults
from sage_trl.data.dataset import INFO_FILE, ROWS_FILE, DatasetInfo, write_ad_pl
from sage_trl.data.faults import FaultList
from sage_trl.data.replacing import IMAGES, carry_over, hold_files
from sage_trl.data.sources import Part, Source, SourceOptions
from sage_trl.data.sources.base import refuse_unused
from sage_trl.errors import DataError
from sage_trl.records import Inspection
from sage_trl.storage import atomic_directory

_DIGEST_TO_COME = "0" * 64


@dataclass(frozen=True)
class LevelCount:
    """Groups and questions of one split and level; `verdicts` questions have a true yes or no, `yes` of them yes."""

    split: str
    level: str
    groups: int
    defective: int
    questions: int
    verdicts: int
    yes: int


class Built(NamedTuple):
    """What was built; `left_out` names files of the dataset it replaced that say nothing of the new one."""

    info: DatasetInfo
    counts: list[LevelCount]
    left_out: tuple[str, ...]


def build_dataset(
    source: Source,
    options: SourceOptions,
    output: Path,
    *,
    force: bool = False,
    copy_images: bool = False,
    author: Author = author_by_rule,
    progress: Callable[[int], None] | None = None,
) -> Built:
    """Build a dataset in a folder `.NAME.part` beside `output` and move it there when it is whole.

    Args:
        source: where the parts come from.
        options: handed to the source; `options.seed` also decides the wording.
        output: directory to make.
        force: replace a dataset that is there; see `carry_over` for what stays of it.
        copy_images: copy image files that could be used where they are, so that the dataset can be moved.
        author: writes the questions of parts that bring none; groups that it leaves out are not in the dataset.
        progress: called with the number of parts so far.

    Raises:
        SageError: what ends an author's work, or another process builds there or writes to a file there; nothing is
            written.
        DataError: an option that means nothing to the source; `output` is there already or holds the source's files;
            or these are faulty.
    """
    refuse_unused(source, options)
    if author is not author_by_rule and "author" not in source.uses:
        remedy = "leave --author out, nobody is asked"
        raise DataError(f"source {source.name!r} brings its own questions\n  remedy: {remedy}")
    check_output(output, force)
    if options.root is not None and output.exists() and options.root.resolve().is_relative_to(output.resolve()):
        problem = f"holds the source's files, {options.root}, which a new dataset would replace"
        raise DataError.at(output, None, problem, "choose another --output")
    with hold_files(output):  # who writes there is told now; below, when it is replaced, it counts
        pass
    # Not flushed image by image, which takes longer than drawing them: a build can be repeated.
    with ExitStack() as held, atomic_directory(output, replace=force, durable=False) as workplace:
        images = _ImagePlace(workplace, options.root, copy_images)
        parts: list[tuple[Scene, Part]] = []
        for part in source.parts(options):
            parts.append((images.place(part), replace(part, test=Path(), reference=None)))
            if progress is not None:
                progress(len(parts))
        if not parts:
            raise DataError(f"source {source.name!r} gave no part\n  remedy: ask for more groups")
        inspections = _inspections(parts, lambda scenes: author(scenes, options.seed, images.path))
        if len(inspections) < len(parts):
            images.keep_only({name for row in inspections for name in (row.test_image, row.reference_image)})
        _refuse_faulty(inspections)
        licence = options.licence or source.licence
        info = DatasetInfo(
            name=source.name,
            licence=licence,
            sources=dict.fromkeys(sorted({row.dataset for row in inspections}), licence),
            image_root=images.image_root(output),
            seed=options.seed,
            splits={},
            sha256=_DIGEST_TO_COME,
        )
        info = write_ad_pl(workplace, inspections, info)
        # Only now: an author's cache may lie there.
        held.enter_context(hold_files(output))
        left_out = carry_over(output, workplace, images.path)
    return Built(info, count_levels(inspections), left_out)


def check_output(output: Path, force: bool) -> None:
    """Refuse to overwrite; even with `force`, only a dataset or an empty folder is replaced.

    Raises:
        DataError: something is at `output`.
    """
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    if not output.is_dir() or not ((output / INFO_FILE).is_file() or (output / ROWS_FILE).is_file()):
        raise DataError.at(output, None, "exists and is no dataset", "choose another --output")
    if not force:
        raise DataError.at(output, None, "holds a dataset already", "choose another --output, or add --force")


def _inspections(
    parts: Sequence[tuple[Scene, Part]], author: Callable[[list[Scene]], list[Inspection | None]]
) -> list[Inspection]:
    """The parts with their own questions, or with those that the author writes, in the order of the parts.

    Raises:
        DataError: questions are to be written, and no part has a defect to ask about; or the author wrote none.
    """
    scenes = [scene for scene, part in parts if not part.questions]
    if scenes and not any(scene.defects for scene in scenes):
        remedy = "add parts with defects: questions that are all answered no teach nothing"
        raise DataError(f"none of {len(scenes)} parts has a defect\n  remedy: {remedy}")
    written = iter(author(scenes) if scenes else [])
    found = [_with_own_questions(scene, part) if part.questions else next(written) for scene, part in parts]
    return [inspection for inspection in found if inspection is not None]


def _with_own_questions(scene: Scene, part: Part) -> Inspection:
    return Inspection(
        id=scene.id,
        dataset=scene.dataset,
        category=scene.category,
        split=scene.split,
        level=part.level,
        test_image=scene.test_image,
        reference_image=scene.reference_image,
        defects=scene.defects,
        questions=part.questions,
        unit=scene.unit,
    )


def _refuse_faulty(inspections: Sequence[Inspection]) -> None:
    """Refuse questions that `tools/check.py` would call an error; a source that brings its own may bring such.

    Raises:
        DataError: all of them, by group.
    """
    faults = FaultList()
    for row in inspections:
        for fault in answer_faults(row, Path(row.id), 0):
            if fault.severity == "error":
                problem = f"field {fault.field!r}: {fault.problem} (value: {fault.value})"
                faults.add(f"group {row.id}", None, problem, fault.remedy)
    faults.raise_all("the questions")


class _ImagePlace:
    """Where the images of a dataset lie: below the source's root as they are, or in the dataset's own folder.

    The first part decides; a source gives either files or pictures.
    """

    def __init__(self, directory: Path, root: Path | None, copy_images: bool) -> None:
        self._directory = directory
        self._root = root
        self._copy_images = copy_images
        self._stays: bool | None = None

    def place(self, part: Part) -> Scene:
        """See that the part's images are in place, and name them."""
        if self._stays is None:
            self._stays = isinstance(part.test, Path) and not self._copy_images
        return Scene(
            id=f"{part.dataset}/{part.name}",
            dataset=part.dataset,
            category=part.category,
            split=part.split,
            test_image=self._place_image(part.test, f"{part.split}/{part.name}_test"),
            reference_image=None
            if part.reference is None
            else self._place_image(part.reference, f"{part.split}/{part.name}_reference"),
            defects=part.defects,
            unit=part.unit,
        )

    def path(self, relative: str) -> Path:
        """Where an image lies while the dataset is built."""
        return (self._root if self._stays and self._root is not None else self._directory) / relative

    def keep_only(self, names: Container[str | None]) -> None:
        """Remove the dataset's own images that no group shows."""
        for path in list((self._directory / IMAGES).rglob("*")):
            if path.is_file() and path.relative_to(self._directory).as_posix() not in names:
                path.unlink()

    def image_root(self, output: Path) -> str:
        """`image_root` of `dataset.json` for a dataset that will lie at `output`."""
        if not self._stays or self._root is None:
            return "."
        return Path(os.path.relpath(self._root.resolve(), output.resolve())).as_posix()

    def _place_image(self, image: Image.Image | Path, name: str) -> str:
        if isinstance(image, Path) and self._stays and self._root is not None:
            return image.relative_to(self._root).as_posix()
        if isinstance(image, Path):
            # A reference serves many parts, and is copied once.
            relative = f"{IMAGES}/{image.relative_to(self._root or image.parent).as_posix()}"
            path = self._directory / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                shutil.copyfile(image, path)
            return relative
        path = self._directory / IMAGES / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
        return path.relative_to(self._directory).as_posix()


def count_levels(inspections: list[Inspection]) -> list[LevelCount]:
    """Counts per split and level, in the order of the rows."""
    groups: Counter[tuple[str, str]] = Counter()
    defective: Counter[tuple[str, str]] = Counter()
    questions: Counter[tuple[str, str]] = Counter()
    verdicts: Counter[tuple[str, str]] = Counter()
    yes: Counter[tuple[str, str]] = Counter()
    for row in inspections:
        key = (row.split, row.level)
        groups[key] += 1
        defective[key] += bool(row.defects)
        questions[key] += len(row.questions)
        verdicts[key] += sum(question.verdict is not None for question in row.questions)
        yes[key] += sum(question.verdict is True for question in row.questions)
    counted = (groups, defective, questions, verdicts, yes)
    return [LevelCount(*key, *(counts[key] for counts in counted)) for key in sorted(groups)]
