"""From photos to parts: checks every file, divides the photos among splits and pairs each with its reference."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from PIL import Image

from sage_trl.data.faults import FaultList
from sage_trl.data.images import decode_image_bytes
from sage_trl.data.pairing import Descriptor, Pairing, descriptor_of, pick_reference
from sage_trl.data.sources.base import Part, SourceOptions, root_of
from sage_trl.data.sources.division import assign_splits, set_references_aside, splits_of
from sage_trl.data.sources.photos import NORMAL, Photo, Seen, check_inside, inspect_photo, label_clashes

SPLIT_SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}


def photo_parts(
    dataset: str,
    photos: Sequence[Photo],
    options: SourceOptions,
    faults: FaultList,
    shares: Mapping[str, float] = SPLIT_SHARES,
) -> Iterator[Part]:
    """Parts of the photos that are no references, split by split.

    Args:
        dataset: value of the parts' `dataset` field.
        photos: what a reader found.
        options: shares of the splits, pairing, cap per split, seed.
        faults: what the reader found at fault; the files' own faults are added.
        shares: the source's default for `options.split_shares`.

    Raises:
        DataError: every fault of the root.
    """
    root = root_of(options, dataset)
    seen = _inspect_all(photos, root, faults)
    faults.raise_all(root)
    pairing = options.pairing or ("given" if any(photo.reference for photo in photos) else "random")
    shares = options.split_shares or shares
    placed = assign_splits(photos, shares, options.seed)
    if pairing not in ("given", "none"):
        placed = set_references_aside(placed, options.defective_share, options.seed)
    _check_pairing(placed, pairing, root, faults)
    faults.raise_all(root)
    for split in splits_of(shares, placed, options.groups):
        own = [photo for photo in placed if photo.split == split]
        yield from _parts_of_split(dataset, split, own, seen, pairing, options)


def _inspect_all(photos: Sequence[Photo], root: Path, faults: FaultList) -> dict[str, Seen]:
    seen: dict[str, Seen] = {}
    for photo in photos:
        with faults.collecting():
            if photo.load is None:
                check_inside(photo.path, root)
            seen[photo.name] = inspect_photo(photo)
    faults.faults += label_clashes((photo, seen[photo.name]) for photo in photos if photo.name in seen)
    if not photos and not faults.faults:
        faults.add(root, None, "holds no image", "check --root against the layout that the source's file describes")
    return seen


def _check_pairing(photos: Sequence[Photo], pairing: Pairing, root: Path, faults: FaultList) -> None:
    if pairing == "none":
        return
    if pairing == "given":
        if not any(photo.reference for photo in photos):
            problem = "pairing 'given': no image has a reference of its own"
            faults.add(root, None, problem, "use --pairing random, or none")
        return
    supplied = {(photo.category, photo.split) for photo in photos if photo.is_reference}
    asked = dict.fromkeys((photo.category, photo.split) for photo in photos if not photo.is_reference)
    for category, split in asked:
        if (category, split) not in supplied:
            problem = f"category {category!r} has no normal image left to serve as reference in split {split!r}"
            remedy = "add normal images, ask for fewer splits (--split-shares train=1), or use --pairing none"
            faults.add(root, None, problem, remedy)


def _parts_of_split(
    dataset: str,
    split: str,
    photos: Sequence[Photo],
    seen: Mapping[str, Seen],
    pairing: Pairing,
    options: SourceOptions,
) -> Iterator[Part]:
    pools: defaultdict[str, list[Photo]] = defaultdict(list)
    asked: defaultdict[str, list[Photo]] = defaultdict(list)
    for photo in sorted(photos, key=lambda photo: photo.name):
        (pools if photo.is_reference else asked)[photo.category].append(photo)
    kept = _kept([photo for own in asked.values() for photo in own], options.groups.get(split), options.seed)
    for category, own in asked.items():
        thumbnails: dict[str, Descriptor] = {}
        by_name = {photo.name: photo for photo in (*own, *pools[category])}

        def describe(
            name: str, known: dict[str, Descriptor] = thumbnails, photos: Mapping[str, Photo] = by_name
        ) -> Descriptor:
            if name not in known:
                known[name] = descriptor_of(_decoded(photos[name]))
            return known[name]

        for photo in own:
            if photo.name not in kept:
                continue
            digest = seen[photo.name].digest
            pool = [other.name for other in pools[category] if seen[other.name].digest != digest]
            picked = pick_reference(photo.name, pool, pairing, options.seed, describe)
            reference = None if picked is None else by_name[picked]
            yield _part(dataset, split, photo, reference, seen[photo.name], pairing)


def _kept(photos: Sequence[Photo], most: int | None, seed: int) -> set[str]:
    """Names of the photos to ask about; a cap keeps the share of defective ones."""
    if most is None or most >= len(photos):
        return {photo.name for photo in photos}
    rng = random.Random(seed)
    normal = [photo.name for photo in photos if photo.label == NORMAL]
    defective = [photo.name for photo in photos if photo.label != NORMAL]
    share = round(most * len(defective) / len(photos))
    return {*rng.sample(defective, share), *rng.sample(normal, most - share)}


def _part(dataset: str, split: str, photo: Photo, picked: Photo | None, seen: Seen, pairing: Pairing) -> Part:
    reference: Image.Image | Path | None = photo.reference if pairing == "given" else None
    if picked is not None:
        reference = picked.path if picked.load is None else _decoded(picked)
    return Part(
        name=photo.name,
        dataset=dataset,
        category=photo.category,
        split=split,
        unit=photo.physical_unit,
        test=photo.path if photo.load is None else _decoded(photo),
        reference=reference,
        defects=seen.defects,
    )


def _decoded(photo: Photo) -> Image.Image:
    return decode_image_bytes(photo.read(), photo.path)
