"""Rows of a Hugging Face dataset, from the hub, a folder or a file: source `datasets`.

    --root USER/NAME          a dataset on the hub
    --root FOLDER             written by `save_to_disk`, or a folder that `load_dataset` reads: Parquet, or an
                              imagefolder (where `metadata.jsonl` or the folders' names give the labels)
    --root FILE               Parquet, JSON lines or CSV

One row; only `image` and `label` are needed:

    {"image": <image>, "label": "scratch", "mask": <image or null>, "category": "plate"}

`image` and `mask` hold images, or texts that name image files, starting from FOLDER or from the folder of FILE.
`--config NAME` says which configuration is meant where a dataset has several.
`label` and `category` are texts or ClassLabels. The labels good, normal, ok and none (of classes also -1; or false, or
0 of a column without class names) mean a normal part. A boolean or a bare number above 0 means a defect `anomaly`.
`--columns image=photo label=defect` says what the columns are called. The splits of the dataset are kept where it has
more than one; a single one is divided by our shares. Pictures are saved into our dataset, since they are rows and not
files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import datasets
from datasets import ClassLabel, Dataset, DatasetDict, Image

from sage_trl.data.faults import FaultList
from sage_trl.data.licences import NOT_STATED
from sage_trl.data.sources.base import PHOTO_OPTIONS, Part, SourceOptions, root_of
from sage_trl.data.sources.photo_parts import photo_parts
from sage_trl.data.sources.photos import GOOD_FOLDERS, NORMAL, Photo, check_inside
from sage_trl.errors import DataError
from sage_trl.lexicon import readable_type
from sage_trl.records import check_relative_path

COLUMNS = ("image", "label", "mask", "category")
NEEDED = ("image", "label")
# Ending of a file -> what `load_dataset` calls those who read it.
BUILDERS = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".csv": "csv"}


class DatasetsSource:
    """Reads the rows of a dataset that the library `datasets` can load."""

    name = "datasets"
    licence = NOT_STATED
    uses = PHOTO_OPTIONS | {"category", "columns", "config"}

    def parts(self, options: SourceOptions) -> Iterator[Part]:
        root = root_of(options, self.name)
        unknown = sorted(set(options.columns) - set(COLUMNS))
        if unknown:
            remedy = f"use some of {', '.join(COLUMNS)}, such as label=defect"
            raise DataError(f"columns: {unknown[0]!r} is no column of ours\n  remedy: {remedy}")
        faults = FaultList()
        splits = load_rows(root, options.config)
        root = root.parent if root.is_file() else root
        photos = [
            photo
            for split, rows in splits.items()
            for photo in _read_split(split if len(splits) > 1 else None, split, rows, root, options, faults)
        ]
        yield from photo_parts(self.name, photos, options, faults)


def load_rows(root: Path, config: str | None = None) -> dict[str, Dataset]:
    """Split -> rows, with images left undecoded.

    Args:
        root: a folder, a file, or the name of a dataset on the hub.
        config: name of the configuration, where there are several.

    Raises:
        DataError: nothing there, nothing that `datasets` can load, or a configuration of what has none.
    """
    is_saved = (root / "dataset_dict.json").is_file() or (root / "state.json").is_file()
    is_table = root.suffix in BUILDERS and root.is_file()
    if config is not None and (is_saved or is_table):
        what = "a file of rows" if is_table else "a dataset that was saved to disk"
        raise DataError.at(root, None, f"{what} has no configurations", "leave --config out")
    try:
        if is_saved:
            loaded = datasets.load_from_disk(str(root))
        elif is_table:
            loaded = datasets.load_dataset(BUILDERS[root.suffix], data_files=str(root))
        else:
            loaded = datasets.load_dataset(str(root), config)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        # The cause is what is wrong with a file; the error itself only says that there is one.
        problem = " ".join(str(error.__cause__ or error).split())
        raise DataError.at(root, None, f"no dataset that can be loaded: {problem}", _remedy(root, problem)) from None
    splits = dict(loaded) if isinstance(loaded, DatasetDict) else {"all": loaded}
    _refuse_ignored_tables(root, splits)
    return splits


def _refuse_ignored_tables(root: Path, splits: Mapping[str, Dataset]) -> None:
    """Where images are in the majority, `load_dataset` takes them alone, and folders' names for labels."""
    if any(rows.info.builder_name == "imagefolder" for rows in splits.values()) and root.is_dir():
        ignored = [path for path in sorted(root.iterdir()) if path.suffix in BUILDERS and path.stem != "metadata"]
        if ignored:
            problem = f"holds images and {ignored[0].name}, of which load_dataset reads the images alone"
            raise DataError.at(root, None, problem, f"give the file that has the rows: --root {ignored[0]}")


def _remedy(root: Path, problem: str) -> str:
    if "Config name" in problem or "BuilderConfig" in problem:
        return "say which one is meant with --config"
    if root.exists():
        return f"give a folder that load_from_disk or load_dataset reads, or a file {', '.join(BUILDERS)}"
    if datasets.config.HF_HUB_OFFLINE:
        return "there is no such folder, and HF_HUB_OFFLINE forbids asking the hub: check the path, or unset it"
    return "there is no such folder: check the path, or the name on the hub; log in (hf auth login) if it is private"


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
            if isinstance(rows.features[column], Image):
                rows = rows.cast_column(column, Image(decode=False))
            elif getattr(rows.features[column], "dtype", None) not in ("string", "large_string"):
                problem = f"column {column!r} of split {name!r} holds neither images nor names of image files"
                faults.add(root, None, problem, f"name another: --columns {ours}=NAME")
                return
    read_label = _label_reader(rows.features[columns["label"]])
    read_category = _name_reader(rows.features.get(columns["category"]))
    described = rows.select_columns([columns[c] for c in COLUMNS if columns[c] in rows.column_names and c != "image"])
    for index, row in enumerate(described):
        place = f"{name}[{index}]"
        column = columns["label"]
        try:
            label = read_label(row[column])
            column = columns["category"]
            category = read_category(row.get(column)) or options.category or "part"
        except (TypeError, ValueError) as error:
            remedy = "write a name, a class or true and false"
            faults.add(root, None, f"{place} field {column!r}: {error}", remedy)
            continue
        read = partial(_image_bytes, rows, index, columns["image"], root, place)
        mask = partial(_image_bytes, rows, index, columns["mask"], root, place) if row.get(columns["mask"]) else None
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


def _image_bytes(rows: Dataset, index: int, column: str, root: Path, place: str) -> bytes:
    """Bytes of an image in a row.

    Raises:
        DataError: the row has none, or its file is not there.
    """
    value: Mapping[str, Any] | str | None = rows[index][column]
    if isinstance(value, str) and value:
        return _named_file(value, column, root, place)
    content = None if not isinstance(value, Mapping) else value.get("bytes")
    path = None if not isinstance(value, Mapping) else value.get("path")
    if content is None and path and Path(path).is_file():
        content = Path(path).read_bytes()
    if content is None:
        raise DataError.at(root / place, None, f"field {column!r}: no image", "add the image, or remove the row")
    return bytes(content)


def _named_file(value: str, column: str, root: Path, place: str) -> bytes:
    try:
        path = root / check_relative_path(value)
    except ValueError as error:
        problem = f"field {column!r}: {value!r} {error}"
        raise DataError.at(root / place, None, problem, "write a path below the root") from None
    check_inside(path, root)
    if not path.is_file():
        problem = f"field {column!r}: no image at {path}"
        raise DataError.at(root / place, None, problem, "restore the image, or remove the row")
    return path.read_bytes()


def _label_reader(feature: Any) -> Callable[[Any], str]:
    """What turns a value of the label's column into `normal` or a readable type."""
    if isinstance(feature, ClassLabel):
        read_name = _name_reader(feature)
        return lambda value: _of_text(read_name(value))
    return _of_value


def _name_reader(feature: Any) -> Callable[[Any], str]:
    """What turns a value of a column into a text: no value, or -1 of classes, into an empty one."""

    def read(value: Any) -> str:
        if value is None or not isinstance(feature, ClassLabel):
            return "" if value is None else str(value)
        if not -1 <= value < len(feature.names):
            raise ValueError(f"{value!r} is no class")
        return "" if value == -1 else str(feature.names[value])

    return read


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
