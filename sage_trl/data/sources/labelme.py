"""Photos annotated with labelme: one JSON file for each photo with defects, beside it or in a folder of its own.

    ROOT/data/01_200905041126_277500_315_crop_2.jpg
    ROOT/label/01_200905041126_277500_315_crop_2.json

A JSON file, shortened; photo and file have the same name, endings apart:

    {"imagePath": "01_200905041126_277500_315_crop_2.jpg", "imageWidth": 1130, "imageHeight": 460,
     "shapes": [{"label": "Pitting", "shape_type": "polygon", "points": [[395.8, 312.6], [397.1, 310.5], ...]}]}

A photo without a file, or with no shapes, is normal. Photos of one camera place are known by their names where these
hold a time and a place, as those of BSData do (`..._200905041126_277500_315_...`): the earliest normal photo of a place
is the reference of the others, and a place with all its photos is in one split. Photos without a place are divided one
by one and have no reference; where no photo has a place, references are picked from the normal photos.
`--category "ball screw"` names the part.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints

from sage_trl.data.faults import FaultList
from sage_trl.data.images import read_size
from sage_trl.data.licences import NOT_STATED
from sage_trl.data.masks import Region
from sage_trl.data.sources.base import PHOTO_OPTIONS, Part, SourceOptions, root_of
from sage_trl.data.sources.json_entries import Entry, json_files, parse_entry
from sage_trl.data.sources.photo_parts import photo_parts
from sage_trl.data.sources.photos import NORMAL, Photo, folders, image_files, name_of
from sage_trl.errors import DataError
from sage_trl.lexicon import readable_type
from sage_trl.storage import read_json

PLACE = re.compile(r"_(?P<time>\d{12})_(?P<place>\d+_\d+)(?:_|$)")
# A shape this thin (pixels) is a slip of the mouse.
MIN_EXTENT = 1.0
Label = Annotated[str, StringConstraints(min_length=1)]


class Shape(Entry):
    """One outlined defect."""

    label: Label
    points: Annotated[list[Annotated[tuple[float, float], Field(strict=False)]], Field(min_length=2)]
    shape_type: str = "polygon"


class Annotation(Entry):
    """What we read of a labelme file."""

    shapes: list[Shape]
    imageWidth: int | None = None  # noqa: N815  labelme's own names
    imageHeight: int | None = None  # noqa: N815


class LabelmeSource:
    """Reads photos and their labelme files."""

    name = "labelme"
    licence = NOT_STATED
    uses = PHOTO_OPTIONS | {"category"}

    def parts(self, options: SourceOptions) -> Iterator[Part]:
        root = root_of(options, self.name)
        faults = FaultList()
        photos = read_labelme(root, options.category or root.resolve().name, faults)
        if options.pairing in (None, "given"):
            photos = with_fixed_places(photos)
        yield from photo_parts(self.name, photos, options, faults)


def read_labelme(root: Path, category: str, faults: FaultList) -> list[Photo]:
    """All photos below the root with their outlined defects; faults are noted."""
    images: dict[str, Path] = {}
    annotations: dict[str, Path] = {}
    for folder in _all_folders(root):
        for path in json_files(folder):
            if path.stem in annotations:
                faults.add(path, None, f"has the same name as {annotations[path.stem]}", "keep one of them")
            annotations.setdefault(path.stem, path)
        for path in image_files(folder, faults, ignore=(".json", ".md", ".txt", ""), reads_folders=True):
            if path.stem in images:
                faults.add(path, None, f"has the same name as {images[path.stem]}", "rename one, with its JSON file")
            images.setdefault(path.stem, path)
    for stem in sorted(set(annotations) - set(images)):
        faults.add(annotations[stem], None, f"no image {stem} below {root}", "restore the image, or remove the file")
    return [_read_photo(path, root, category, annotations.get(stem), faults) for stem, path in sorted(images.items())]


def _all_folders(root: Path) -> Iterator[Path]:
    if root.is_dir():
        yield root
        for folder in folders(root):
            yield from _all_folders(folder)


def _read_photo(path: Path, root: Path, category: str, annotation: Path | None, faults: FaultList) -> Photo:
    regions: tuple[tuple[str, Region], ...] = ()
    if annotation is not None:
        # An image that cannot be read is noted with the others, later.
        try:
            size = read_size(path)
        except DataError:
            size = None
        with faults.collecting():
            regions = tuple(_regions(annotation, size, faults))
    types = tuple(dict.fromkeys(kind for kind, _ in regions))
    found = PLACE.search(path.stem)
    place = None if found is None else found["place"]
    name = name_of(path, root)
    label = types[0] if types else NORMAL
    return Photo(name, path, category, label, place or name, regions=regions, types=types, physical_unit=place)


def _regions(path: Path, size: tuple[int, int] | None, faults: FaultList) -> Iterator[tuple[str, Region]]:
    annotation = parse_entry(Annotation, read_json(path), path, "", faults)
    if annotation is None or size is None:
        return
    width, height = size
    told = annotation.imageWidth or width, annotation.imageHeight or height
    if told != size:
        problem = f"field 'imageWidth': outlined on {told[0]}x{told[1]} pixels, but the image has {width}x{height}"
        faults.add(path, None, problem, "restore the image that was outlined, or outline this one")
        return
    for number, shape in enumerate(annotation.shapes):
        with faults.collecting():
            yield readable_type(shape.label), _region(shape, size, path, f"shapes.{number}")


def _region(shape: Shape, size: tuple[int, int], path: Path, field: str) -> Region:
    """Box and share of a shape, cut at the edges of the image.

    Raises:
        DataError: numbers that are none, or nothing of it lies in the image.
    """
    points = shape.points
    if shape.shape_type == "circle":
        (x, y), (rim_x, rim_y) = points[:2]
        radius = math.hypot(rim_x - x, rim_y - y)
        points = [(x - radius, y - radius), (x + radius, y + radius)]
    width, height = size
    if not all(math.isfinite(value) for point in points for value in point):
        raise DataError.at(path, None, f"field {field + '.points'!r}: a point is not finite", "outline it anew")
    xs = [min(max(x, 0.0), float(width)) for x, _ in points]
    ys = [min(max(y, 0.0), float(height)) for _, y in points]
    left, top, right, bottom = min(xs), min(ys), max(xs), max(ys)
    if right - left < MIN_EXTENT or bottom - top < MIN_EXTENT:
        problem = f"field {field + '.points'!r}: {shape.label!r} has no area inside {width}x{height} pixels"
        raise DataError.at(path, None, problem, "outline the defect anew, or remove the shape")
    area = (right - left) * (bottom - top)
    if shape.shape_type == "polygon" and len(points) > 2:
        area = abs(sum(xs[i - 1] * ys[i] - xs[i] * ys[i - 1] for i in range(len(xs)))) / 2
    box = (left / width, top / height, right / width, bottom / height)
    return Region(box, min(area / (width * height), 1.0))


def with_fixed_places(photos: list[Photo]) -> list[Photo]:
    """The photos with the earliest normal photo of their place as reference; that one is asked nothing."""
    times = {photo.name: found["time"] for photo in photos if (found := PLACE.search(photo.path.stem))}
    places: defaultdict[str, list[Photo]] = defaultdict(list)
    for photo in photos:
        if photo.name in times and photo.label == NORMAL:
            places[photo.unit].append(photo)
    earliest: Mapping[str, Photo] = {
        place: min(normal, key=lambda photo: times[photo.name]) for place, normal in places.items()
    }
    placed = []
    for photo in photos:
        first = earliest.get(photo.unit)
        if first is None:
            placed.append(photo)
        else:
            same = photo.name == first.name
            placed.append(replace(photo, is_reference=same, reference=None if same else first.path))
    return placed
