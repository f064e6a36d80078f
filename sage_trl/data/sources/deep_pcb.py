"""DeepPCB: photos of bare circuit boards, each with a photo of the same place without defects, and boxes of defects.

Layout below the root (or below its folder `PCBData`): `groupG/N/X_test.jpg`, `groupG/N/X_temp.jpg` and
`groupG/N_not/X.txt` with lines `x1 y1 x2 y2 type` (spaces or commas) in pixels of the test photo.

Every test photo holds several small defects, so we cut crops. A crop with a defect holds that box whole, and no box
of another defect in part; its place is drawn by chance, so the defect may lie anywhere in it. Crops without a defect
come from the same photos, away from all boxes, with about as much copper. Some pairs are shifted against each other by
a few pixels: the shift is estimated from the whole photos, and the reference crop follows it. Groups are boards, and
whole groups go to a split.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from sage_trl.data.faults import FaultList
from sage_trl.data.images import open_image
from sage_trl.data.sources.base import Part, SourceOptions
from sage_trl.data.sources.crops import Crop, Grey, Window, copper_share, crops_around_defects, crops_without_defect
from sage_trl.data.sources.photos import check_inside
from sage_trl.errors import DataError
from sage_trl.records import Defect

TYPES = {1: "open", 2: "short", 3: "mousebite", 4: "spur", 5: "copper", 6: "pin-hole"}
SPLIT_SHARES = {"train": 0.6, "validation": 0.2, "test": 0.2}
DEFAULT_SIZE = 128
MAX_SHIFT = 16


@dataclass(frozen=True)
class Photo:
    """One pair of photos; boxes are `(x1, y1, x2, y2)` in pixels of the test photo."""

    name: str
    group: str
    test: Path
    reference: Path
    boxes: tuple[tuple[int, int, int, int], ...]
    types: tuple[str, ...]


class DeepPcbSource:
    """Reads the pairs below a root and cuts them into crops."""

    name = "deep_pcb"
    licence = "MIT by its LICENSE file, research purposes only by its README: treat as research only"
    uses = frozenset({"root", "image_size", "defective_share", "crops_per_defect", "author"})

    def parts(self, options: SourceOptions) -> Iterator[Part]:
        photos = read_photos(options.root)
        size = options.image_size or DEFAULT_SIZE
        if not 64 <= size <= 320:
            raise DataError(f"image size {size} is out of range\n  remedy: use crops of 64 to 320 pixels")
        splits = assign_splits(photos)
        unknown = set(options.groups) - set(SPLIT_SHARES)
        if unknown:
            raise DataError(f"split {min(unknown)!r} is unknown\n  remedy: use some of {', '.join(SPLIT_SHARES)}")
        for split in SPLIT_SHARES:
            chosen = [photo for photo in photos if splits[photo.group] == split]
            yield from _parts_of_split(split, chosen, size, options)


def _parts_of_split(split: str, photos: Sequence[Photo], size: int, options: SourceOptions) -> Iterator[Part]:
    rng = random.Random(f"{options.seed} {split}")
    planned: list[tuple[Photo, tuple[int, int], Crop]] = []
    normal_per_defective = (1 - options.defective_share) / options.defective_share
    owed = 0.0
    for photo in photos:
        test, reference = _grey(photo.test), _grey(photo.reference)
        shift = estimate_shift(test, reference)
        window = Window.shared(test.shape, shift, size)
        defective = crops_around_defects(photo.boxes, window, options.crops_per_defect, rng)
        owed += len(defective) * normal_per_defective
        shares = [copper_share(test, crop.corner, size) for crop in defective]
        wanted = [rng.choice(shares) for _ in range(int(owed))] if shares else []
        normal = crops_without_defect(photo.boxes, window, wanted, test, rng)
        owed -= len(normal)
        planned += [(photo, shift, crop) for crop in (*defective, *normal)]
    for number in _kept(planned, options.groups.get(split), rng):
        photo, shift, crop = planned[number]
        test_crop, reference_crop, defects = _cut(photo, shift, crop, size)
        name = f"{photo.name}_{number:05d}"
        yield Part(name, "deep_pcb", "pcb", split, photo.group, test_crop, reference_crop, defects)


def _kept(planned: Sequence[tuple[Photo, tuple[int, int], Crop]], most: int | None, rng: random.Random) -> list[int]:
    """Indices of the crops to keep, in order; a cap keeps the share of crops with a defect."""
    if most is None or most >= len(planned):
        return list(range(len(planned)))

    defective = [number for number, (_, _, crop) in enumerate(planned) if crop.inside]
    normal = [number for number, (_, _, crop) in enumerate(planned) if not crop.inside]
    share = round(most * len(defective) / len(planned))
    kept = rng.sample(defective, share) + rng.sample(normal, most - share)
    return sorted(kept)


def _cut(
    photo: Photo, shift: tuple[int, int], crop: Crop, size: int
) -> tuple[Image.Image, Image.Image, tuple[Defect, ...]]:
    x, y = crop.corner
    test = _open_photo(photo.test).crop((x, y, x + size, y + size))
    left, top = x - shift[0], y - shift[1]
    reference = _open_photo(photo.reference).crop((left, top, left + size, top + size))
    defects = tuple(
        Defect(
            type=photo.types[index],
            box=(
                (photo.boxes[index][0] - x) / size,
                (photo.boxes[index][1] - y) / size,
                (photo.boxes[index][2] - x) / size,
                (photo.boxes[index][3] - y) / size,
            ),
        )
        for index in crop.inside
    )
    return test, reference, defects


# Crops of one photo follow each other, so a photo is decoded once and not once per crop.
_open_photo = lru_cache(maxsize=4)(open_image)


def _grey(path: Path) -> Grey:
    return np.asarray(_open_photo(path).convert("L"), dtype=np.float32)


def read_photos(root: Path | None) -> list[Photo]:
    """All pairs below the root, in the order of their names.

    Raises:
        DataError: no root, or every fault of it: no pair, a photo that cannot be read, that lacks its partner or
            annotation, or is of another size, and each faulty line of an annotation.
    """
    if root is None:
        raise DataError("source 'deep_pcb' needs its files\n  remedy: give their directory with --root")
    base = root / "PCBData" if (root / "PCBData").is_dir() else root
    faults = FaultList()
    tests = sorted(base.glob("group*/*/*_test.jpg"))
    photos = [_read_photo(test, root, faults) for test in tests]
    if not photos:
        remedy = "give the directory that holds PCBData/groupG/N/X_test.jpg"
        faults.add(root, None, "holds no DeepPCB photos", remedy)
    known = {path for test in tests for path in _companions(test)}
    for path in sorted({*base.glob("group*/*/*_temp.jpg"), *base.glob("group*/*_not/*.txt")} - known):
        faults.add(path, None, "belongs to no test photo", "restore X_test.jpg, or remove this file")
    faults.raise_all(root)
    return photos


def _companions(test: Path) -> tuple[Path, Path]:
    """Reference photo and annotation of a test photo."""
    name = test.name.removesuffix("_test.jpg")
    return test.with_name(f"{name}_temp.jpg"), test.parent.with_name(f"{test.parent.name}_not") / f"{name}.txt"


def _read_photo(test: Path, root: Path, faults: FaultList) -> Photo:
    reference, annotation = _companions(test)
    for path in (reference, annotation):
        if not path.is_file():
            faults.add(path, None, f"no such file, needed for {test.name}", "restore it, or remove the photo")
    size = None
    with faults.collecting():
        check_inside(test, root)
        size = open_image(test).size
    with faults.collecting():
        if reference.is_file() and open_image(reference).size != size and size is not None:
            raise DataError.at(reference, None, f"is not of the size of {test.name}", "restore the file")
    rows = _read_boxes(annotation, size, faults) if annotation.is_file() else []
    return Photo(
        name=test.name.removesuffix("_test.jpg"),
        group=test.parent.parent.name,
        test=test,
        reference=reference,
        boxes=tuple(box for box, _ in rows),
        types=tuple(kind for _, kind in rows),
    )


def _read_boxes(
    annotation: Path, size: tuple[int, int] | None, faults: FaultList
) -> list[tuple[tuple[int, int, int, int], str]]:
    rows = []
    with faults.collecting():
        for number, line in enumerate(_lines(annotation), start=1):
            with faults.collecting():
                if line.strip():
                    rows.append(_read_box(line, size, annotation, number))
        if not rows:
            raise DataError.at(annotation, None, "marks no defect", "restore the annotation, or remove the photo")
    return rows


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DataError.at(path, None, f"not UTF-8: {error}", "restore the file") from None


def _read_box(
    line: str, size: tuple[int, int] | None, path: Path, number: int
) -> tuple[tuple[int, int, int, int], str]:
    try:
        x1, y1, x2, y2, kind = (int(value) for value in line.replace(",", " ").split())
    except ValueError:
        remedy = "write x1 y1 x2 y2 type as five whole numbers"
        raise DataError.at(path, number, f"not a box: {line!r}", remedy) from None
    if kind not in TYPES or not (0 <= x1 < x2 and 0 <= y1 < y2):
        problem = f"no box with an area, or type {kind} is not 1 to {len(TYPES)}: {line!r}"
        raise DataError.at(path, number, problem, "write x1 < x2, y1 < y2 and a type that the README lists")
    if size is not None and (x2 > size[0] or y2 > size[1]):
        problem = f"the box leaves the photo of {size[0]}x{size[1]} pixels: {line!r}"
        raise DataError.at(path, number, problem, "restore the annotation of this photo")
    return (x1, y1, x2, y2), TYPES[kind]


def estimate_shift(test: Grey, reference: Grey) -> tuple[int, int]:
    """(dx, dy) in whole pixels such that `test[y, x]` shows what `reference[y - dy, x - dx]` shows.

    The peak of the circular cross-correlation, at most `MAX_SHIFT` along each axis.
    """
    spectrum = np.fft.rfft2(test - test.mean()) * np.conj(np.fft.rfft2(reference - reference.mean()))
    correlation = np.fft.irfft2(spectrum, s=test.shape)
    reach = range(-MAX_SHIFT, MAX_SHIFT + 1)
    near = correlation[np.ix_(reach, reach)]
    row, column = np.unravel_index(int(near.argmax()), near.shape)
    return int(column) - MAX_SHIFT, int(row) - MAX_SHIFT


def assign_splits(photos: Sequence[Photo]) -> Mapping[str, str]:
    """Group -> split, such that every split has its share of the defects of each type as nearly as can be.

    All assignments are tried: DeepPCB has few groups. With less than three groups the later splits stay empty.
    """
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for photo in photos:
        counts[photo.group].update(photo.types)
    groups = sorted(counts)
    total = _sum(counts.values())
    if len(groups) > 10:
        raise DataError(f"{len(groups)} groups are more than can be split evenly by trial\n  remedy: use at most 10")

    def unevenness(assignment: tuple[str, ...]) -> float:
        error = 0.0
        for split, share in SPLIT_SHARES.items():
            own = _sum(counts[group] for group, given in zip(groups, assignment, strict=True) if given == split)
            error += sum((own[kind] - share * number) ** 2 for kind, number in total.items())
        return error

    best = min(itertools.product(SPLIT_SHARES, repeat=len(groups)), key=unevenness)
    return dict(zip(groups, best, strict=True))


def _sum(counters: Iterable[Counter[str]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for counter in counters:
        total.update(counter)
    return total
