"""Rows of a Hugging Face dataset, from the hub or from a folder: source `datasets`.

    --root USER/NAME          a dataset on the hub
    --root FOLDER             written by `save_to_disk`, or a folder that `load_dataset` reads (Parquet, imagefolder)

One row; only `image` and `label` are needed:

    {"image": <image>, "label": "scratch", "mask": <image or null>, "category": "plate"}

`label` is a text or a ClassLabel; good, normal, ok and no label (or false, or 0 of a column without class names) mean a
normal part. A boolean or a bare number above 0 means a defect `anomaly`. `--columns image=photo label=defect` says what
the columns are called. The splits of the dataset are kept where it has more than one; a single one is divided by our
shares. Pictures are saved into our dataset, since they are rows and not files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import datasets
from datasets import ClassLabel, Dataset, DatasetDict, Image

from sage_trl.data.faults import FaultList
from sage_trl.data.sources.base import Part, SourceOptions, root_of
from sage_trl.data.sources.photo_parts import photo_parts
from sage_trl.data.sources.photos import GOOD_FOLDERS, NORMAL, Photo
from sage_trl.errors import DataError
from sage_trl.lexicon import readable_type

COLUMNS = ("image", "label", "mask", "category")
NEEDED = ("image", "label")


class DatasetsSource:
    """Reads the rows of a dataset that the library `datasets` can load."""

    name = "datasets"
    licence = "not stated: give it with --licence"

    def parts(self, options: SourceOptions) -> Iterator[Part]:
        root = root_of(options, self.name)
        unknown = sorted(set(options.columns) - set(COLUMNS))
        if unknown:
            remedy = f"use some of {', '.join(COLUMNS)}, such as label=defect"
            raise DataError(f"columns: {unknown[0]!r} is no column of ours\n  remedy: {remedy}")
        faults = FaultList()
        splits = load_rows(root)
        photos = [
            photo
            for split, rows in splits.items()
            for photo in _read_split(split if len(splits) > 1 else None, split, rows, root, options, faults)
        ]
        yield from photo_parts(self.name, photos, options, faults)


def load_rows(root: Path) -> dict[str, Dataset]:
    """Split -> rows, with images left undecoded.

    Raises:
        DataError: nothing there, or nothing that `datasets` can load.
    """
    try:
        if (root / "dataset_dict.json").is_file() or (root / "state.json").is_file():
            loaded = datasets.load_from_disk(str(root))
        else:
            loaded = datasets.load_dataset(str(root))
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        remedy = "give a folder that load_from_disk or load_dataset reads, or the name of a dataset on the hub"
        raise DataError.at(root, None, f"no dataset that can be loaded: {error}", remedy) from None
    return dict(loaded) if isinstance(loaded, DatasetDict) else {"all": loaded}


def _read_split(
    split: str | None, name: str, rows: Dataset, root: Path, options: SourceOptions, faults: FaultList
) -> Iterator[Photo]:
    columns = {ours: options.columns.get(ours, ours) for ours in COLUMNS}
    for ours in NEEDED:
        if columns[ours] not in rows.column_names:
            problem = f"split {name!r} has no column {columns[ours]!r}, only {', '.join(rows.column_names)}"
            faults.add(root, None, problem, f"say what it is called: --columns {ours}=NAME")
            return
    for ours in ("image", "mask"):
        column = columns[ours]
        if column in rows.column_names:
            if not isinstance(rows.features[column], Image):
                faults.add(root, None, f"column {column!r} of split {name!r} holds no images", "cast it to Image")
                return
            rows = rows.cast_column(column, Image(decode=False))
    read_label = _label_reader(rows.features[columns["label"]])
    described = rows.select_columns([columns[c] for c in COLUMNS if columns[c] in rows.column_names and c != "image"])
    for index, row in enumerate(described):
        place = f"{name}[{index}]"
        try:
            label = read_label(row[columns["label"]])
        except (TypeError, ValueError) as error:
            remedy = "write a name, a class or true and false"
            faults.add(root, None, f"{place} field {columns['label']!r}: {error}", remedy)
            continue
        category = str(row.get(columns["category"]) or options.category or "part")
        read = partial(_image_bytes, rows, index, columns["image"], root / place)
        mask = partial(_image_bytes, rows, index, columns["mask"], root / place) if row.get(columns["mask"]) else None
        if label != NORMAL and mask is None and columns["mask"] in rows.column_names:
            faults.add(root, None, f"{place} field {columns['mask']!r}: {label!r} without a mask", "add the mask")
        yield Photo(
            name=f"{name}_{index:06d}",
            path=root / place,
            category=category,
            label=label,
            unit=f"{name}_{index:06d}",
            split=split,
            types=() if label == NORMAL else (label,),
            load=read,
            load_mask=None if label == NORMAL else mask,
        )


def _image_bytes(rows: Dataset, index: int, column: str, name: Path) -> bytes:
    """Bytes of an image in a row.

    Raises:
        DataError: the row has none, or its file is not there.
    """
    value: Mapping[str, Any] | None = rows[index][column]
    content = None if value is None else value.get("bytes")
    path = None if value is None else value.get("path")
    if content is None and path and Path(path).is_file():
        content = Path(path).read_bytes()
    if content is None:
        raise DataError.at(name, None, f"field {column!r}: no image", "add the image, or remove the row")
    return bytes(content)


def _label_reader(feature: Any) -> Callable[[Any], str]:
    """What turns a value of the label's column into `normal` or a readable type."""
    if isinstance(feature, ClassLabel):
        names = feature.names

        def of_class(value: Any) -> str:
            if not isinstance(value, int) or not 0 <= value < len(names):
                raise ValueError(f"{value!r} is no class")
            return _of_text(names[value])

        return of_class
    return _of_value


def _of_value(value: Any) -> str:
    if value is None:
        return NORMAL
    if isinstance(value, bool | int):
        if value < 0:
            raise ValueError(f"{value!r} is negative")
        return readable_type("anomaly") if value else NORMAL
    if isinstance(value, str):
        return _of_text(value)
    raise TypeError(f"{value!r} is no label")


def _of_text(name: str) -> str:
    if not name.strip() or name.strip().lower() in GOOD_FOLDERS:
        return NORMAL
    return readable_type(name)
