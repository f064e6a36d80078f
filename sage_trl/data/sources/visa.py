"""VisA in its raw layout: 12 objects, some several at once in a photo, with pixel masks.

    ROOT/candle/Data/Images/Normal/0000.JPG
    ROOT/candle/Data/Images/Anomaly/000.JPG
    ROOT/candle/Data/Masks/Anomaly/000.png
    ROOT/candle/image_anno.csv              image,label,mask
    ROOT/split_csv/2cls_highshot.csv        object,split,label,image,mask

A row of `image_anno.csv` (with or without the line of column names), with one defect type or several:

    candle/Data/Images/Anomaly/000.JPG,"melt,foreign particals on candle",candle/Data/Masks/Anomaly/000.png

The split of a photo is that of `--split-file`: `2cls_highshot` and `2cls_fewshot` have defects on both sides. With
`1cls`, whose training side is normal only, that side holds the references, and the others are divided by our shares.
Without a folder `split_csv` all photos are.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from sage_trl.data.faults import FaultList
from sage_trl.data.sources.base import PHOTO_OPTIONS, Part, SourceOptions, root_of
from sage_trl.data.sources.photo_parts import photo_parts
from sage_trl.data.sources.photos import NORMAL, Photo, folders, image_files, match_masks, name_of, note_other_folders
from sage_trl.lexicon import readable_type

ONE_CLASS = "1cls"
ANNOTATION = "image_anno.csv"
SPLITS = "split_csv"
KINDS = ("Normal", "Anomaly")
ANNOTATION_COLUMNS = ("image", "label", "mask")
SPLIT_COLUMNS = ("object", "split", "label", "image", "mask")


class VisaSource:
    """Reads a root of VisA."""

    name = "visa"
    licence = "CC BY 4.0 (VisA)"
    uses = PHOTO_OPTIONS | {"split_file"}

    def parts(self, options: SourceOptions) -> Iterator[Part]:
        faults = FaultList()
        photos = read_visa(root_of(options, self.name), options.split_file, faults)
        yield from photo_parts(self.name, photos, options, faults)


def read_visa(root: Path, split_file: str, faults: FaultList) -> list[Photo]:
    """All photos with their types and splits; whatever the files and tables disagree on is noted as a fault."""
    categories = [folder for folder in folders(root) if (folder / "Data").is_dir()] if root.is_dir() else []
    if not categories:
        problem = "holds no object with a folder Data"
        faults.add(root, None, problem, "give the folder that holds candle, capsules, ... and split_csv")
        return []
    known = [SPLITS, *(category.name for category in categories)]
    note_other_folders(root, known, "holds no folder Data", "restore it, or move the folder out of the root", faults)
    photos = [photo for category in categories for photo in _read_category(category, root, faults)]
    if not (root / SPLITS).is_dir():
        return photos
    return _with_splits(photos, root, split_file, faults)


def _read_category(category: Path, root: Path, faults: FaultList) -> list[Photo]:
    images = category / "Data" / "Images"
    found: dict[str, Path] = {}
    for kind in KINDS:
        folder = images / kind
        if not folder.is_dir():
            faults.add(folder, None, "no such folder", "restore it: every object has normal and anomalous images")
            continue
        found |= {path.relative_to(root).as_posix(): path for path in image_files(folder, faults)}
    if images.is_dir():
        remedy = "move its images into one of them, or move it out of the root"
        note_other_folders(images, KINDS, f"is none of {', '.join(KINDS)}", remedy, faults)
    anomalous = [path for path in found.values() if path.parent.name == "Anomaly"]
    masks = category / "Data" / "Masks" / "Anomaly"
    mask_files = image_files(masks, faults) if masks.is_dir() else []
    matched = match_masks(anomalous, mask_files, masks, faults)
    labels = _read_labels(category / ANNOTATION, found, faults)
    photos = []
    for relative, path in found.items():
        types = labels.get(relative)
        if types is None:
            continue
        label = types[0] if types else NORMAL
        name = name_of(path, root)
        photos.append(Photo(name, path, category.name, label, name, mask=matched.get(path), types=types))
    return photos


def _read_labels(table: Path, found: Mapping[str, Path], faults: FaultList) -> dict[str, tuple[str, ...]]:
    """Relative path -> defect types, empty for a normal photo."""
    labels: dict[str, tuple[str, ...]] = {}
    lines: dict[str, int] = {}
    for line, row in _rows(table, ANNOTATION_COLUMNS, faults):
        image = row["image"]
        if image in lines:
            faults.add(table, line, f"column 'image': {image!r} is on line {lines[image]} already", "keep one line")
            continue
        lines[image] = line
        if image not in found:
            faults.add(table, line, f"column 'image': no file {image!r}", "restore the image, or remove the line")
            continue
        types = tuple(dict.fromkeys(readable_type(name) for name in row["label"].split(",") if name.strip()))
        is_anomalous = found[image].parent.name == "Anomaly"
        if not types or is_anomalous == (types == (NORMAL,)):
            problem = f"column 'label': {row['label']!r}, but the image lies in {found[image].parent.name}"
            faults.add(table, line, problem, "correct the label, or move the image")
            continue
        labels[image] = types if is_anomalous else ()
    if table.is_file():
        for image in sorted(set(found) - set(lines)):
            faults.add(found[image], None, f"has no line in {table.name}", "add a line, or remove the image")
    return labels


def _with_splits(photos: list[Photo], root: Path, split_file: str, faults: FaultList) -> list[Photo]:
    table = root / SPLITS / f"{split_file}.csv"
    splits: dict[str, str] = {}
    for line, row in _rows(table, SPLIT_COLUMNS, faults):
        if row["split"] not in ("train", "test"):
            faults.add(table, line, f"column 'split': {row['split']!r}", "write train or test")
        splits[PurePosixPath(row["image"]).with_suffix("").as_posix()] = row["split"]
    if not table.is_file():
        return photos
    placed = []
    for photo in photos:
        split = splits.get(photo.name)
        if split is None:
            faults.add(photo.path, None, f"has no line in {table.name}", "add a line, or give another --split-file")
        elif split_file == ONE_CLASS:
            placed.append(replace(photo, is_reference=split == "train" and photo.label == NORMAL))
        else:
            placed.append(replace(photo, split=split))
    return placed


def _rows(path: Path, columns: tuple[str, ...], faults: FaultList) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and fields of each row of a table, whose line of column names may be missing."""
    if not path.is_file():
        faults.add(path, None, "no such file", "restore it: it comes with the dataset")
        return
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        faults.add(path, None, f"not UTF-8: {error}", "save the table as UTF-8")
        return
    reader = csv.reader(text.splitlines())
    for fields in _fields(reader, path, faults):
        if not fields or tuple(name.strip().lower() for name in fields) == columns:
            continue
        if len(fields) < len(columns) - 1 or len(fields) > len(columns):
            problem = f"{len(fields)} fields: {','.join(fields)[:80]!r}"
            remedy = f"write {', '.join(columns)}; quote a label that holds a comma"
            faults.add(path, reader.line_num, problem, remedy)
            continue
        # A line of a normal image may end without its empty mask.
        padded = [field.strip() for field in fields] + [""] * (len(columns) - len(fields))
        yield reader.line_num, dict(zip(columns, padded, strict=True))


def _fields(reader: Any, path: Path, faults: FaultList) -> Iterator[list[str]]:
    try:
        yield from reader
    except csv.Error as error:
        faults.add(path, reader.line_num, f"no table: {error}", "restore the file")
