"""Finds every fault of a dataset before training meets the first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sage_trl.data.dataset import (
    INFO_FILE,
    ROWS_FILE,
    DatasetInfo,
    digest_fault,
    duplicate_fault,
    missing_images,
    read_info,
)
from sage_trl.data.images import open_image
from sage_trl.errors import DataError
from sage_trl.records import Inspection, iterate_records, parse_record
from sage_trl.storage import read_json_lines


def check_dataset(directory: Path | str, progress: Callable[[int], None] | None = None) -> list[DataError]:
    """Every fault of a dataset: `dataset.json`, each line of `ad_pl.jsonl`, each image decoded.

    Args:
        directory: the dataset's directory.
        progress: called with the number of lines checked.

    Returns:
        Faults in the order of the files; none for a dataset that can be used.
    """
    root = Path(directory)
    if not (root / ROWS_FILE).is_file():
        return [DataError.at(root / ROWS_FILE, None, "no such file", "check the path, or build a dataset first")]
    faults: list[DataError] = []
    info: DatasetInfo | None = None
    try:
        info = read_info(root)
        faults += digest_fault(root, info)
    except DataError as error:
        faults.append(error)
    image_root = root / (info.image_root if info is not None else ".")
    checked: set[Path] = set()
    lines: dict[str, int] = {}
    splits: dict[str, int] = {}
    for number, value in read_json_lines(root / ROWS_FILE):
        try:
            row = _as_inspection(value, root / ROWS_FILE, number)
        except DataError as error:
            faults.append(error)
            continue
        splits[row.split] = splits.get(row.split, 0) + 1
        faults += duplicate_fault(root, lines, row.id, number)
        lines.setdefault(row.id, number)
        faults += missing_images(root, image_root, row, number)
        faults += _unreadable_images(image_root, row, checked)
        if progress is not None:
            progress(number)
    if not lines:
        faults.append(DataError.at(root / ROWS_FILE, None, "holds no group", "build the dataset anew"))
    if info is not None and info.splits != splits:
        problem = f"field 'splits': {info.splits}, but the rows give {splits}"
        faults.append(DataError.at(root / INFO_FILE, None, problem, "build the dataset anew, or correct the counts"))
    return faults


def unusual_shapes(directory: Path | str) -> dict[str, int]:
    """How many groups and questions depart from AD-PL's five questions and four answers; they load all the same."""
    counts = {"groups without five questions": 0, "questions without four answers": 0}
    path = Path(directory) / ROWS_FILE
    for _, row in iterate_records(Inspection, path):
        counts["groups without five questions"] += len(row.questions) != 5
        counts["questions without four answers"] += sum(len(q.answers) != 4 for q in row.questions)
    return {name: count for name, count in counts.items() if count}


def _as_inspection(value: Any, path: Path, number: int) -> Inspection:
    if isinstance(value, DataError):
        raise value
    return parse_record(Inspection, value, path, number)


def _unreadable_images(image_root: Path, row: Inspection, checked: set[Path]) -> Iterator[DataError]:
    for relative in (row.test_image, row.reference_image):
        path = None if relative is None else image_root / relative
        if path is None or path in checked or not path.is_file():
            continue
        checked.add(path)
        try:
            open_image(path)
        except DataError as error:
            yield error
