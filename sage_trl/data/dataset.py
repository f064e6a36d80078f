"""The AD-PL directory: `ad_pl.jsonl`, `dataset.json` and the images below (or below `image_root`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, field_validator

from sage_trl.errors import DataError
from sage_trl.records import Inspection, Record, Text, check_relative_path, iterate_records, parse_record
from sage_trl.storage import file_sha256, read_json, write_json, write_jsonl

ROWS_FILE = "ad_pl.jsonl"
INFO_FILE = "dataset.json"
SCORES_FILE = "scores.jsonl"


class DatasetInfo(Record):
    """The content of `dataset.json`.

    `sources` maps each `dataset` name to its licence, `splits` each split to its number of groups; `sha256` is that
    of `ad_pl.jsonl`. `image_root` starts from the dataset's directory and may lead out of it (`../mvtec`), so that the
    images of a benchmark need not be copied.
    """

    name: Text
    licence: Text
    sources: dict[str, str]
    image_root: Text = "."
    seed: int
    splits: dict[str, int]
    sha256: Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
    version: Literal[1] = Field(default=1)

    @field_validator("image_root")
    @classmethod
    def _image_root_is_relative(cls, value: str) -> str:
        if not value.isprintable():
            raise ValueError("holds what no path has")
        upwards = PurePosixPath(value).parts.count("..")
        check_relative_path(str(PurePosixPath(*PurePosixPath(value).parts[upwards:])))
        return value


@dataclass(frozen=True)
class AdPlDirectory:
    """A dataset that has been read; `image_root` is the folder that image paths start from."""

    root: Path
    image_root: Path
    info: DatasetInfo
    inspections: tuple[Inspection, ...]

    def select(
        self, splits: Collection[str] | None = None, datasets: Collection[str] | None = None
    ) -> tuple[Inspection, ...]:
        """Inspections of some splits and sources (`dataset` field), all where None, in the order of the file.

        Raises:
            DataError: a split or source that no inspection has.
        """
        self._check_names("split", splits, {row.split for row in self.inspections})
        self._check_names("dataset", datasets, {row.dataset for row in self.inspections})
        return tuple(
            row
            for row in self.inspections
            if (splits is None or row.split in splits) and (datasets is None or row.dataset in datasets)
        )

    def image_path(self, relative: str) -> Path:
        """Where an image of a row lies."""
        return self.image_root / relative

    def _check_names(self, field: str, asked: Collection[str] | None, existing: set[str]) -> None:
        missing = sorted(set(asked or ()) - existing)
        if missing:
            remedy = f"use one of {', '.join(sorted(existing))}"
            raise DataError.at(self.root / ROWS_FILE, None, f"no {field} {missing[0]!r}", remedy)


def read_ad_pl(directory: Path | str) -> AdPlDirectory:
    """Read and check a dataset; images must exist, whether they decode is for `open_image` and `examine_dataset`.

    A group that stands there twice is read once.

    Raises:
        DataError: the first fault, with file, line, field, value and remedy.
    """
    root = Path(directory)
    if not root.is_dir():
        remedy = "check the path, or build a dataset with tools/build_dataset.py"
        raise DataError.at(root, None, "no such dataset directory", remedy)
    info = read_info(root)
    image_root = root / info.image_root
    rows: list[Inspection] = []
    lines: dict[str, tuple[int, int]] = {}
    for number, row in iterate_records(Inspection, root / ROWS_FILE):
        if row.id in lines:
            line, place = lines[row.id]
            if rows[place] == row:
                continue
            problem = f"field 'id': {row.id!r} is the id of line {line} already, with other content"
            raise DataError.at(root / ROWS_FILE, number, problem, "give every group its own id")
        _refuse_missing_images(root, image_root, row, number)
        lines[row.id] = number, len(rows)
        rows.append(row)
    if not rows:
        raise DataError.at(root / ROWS_FILE, None, "holds no group", "build the dataset anew")
    refuse_changed_rows(root, info)
    return AdPlDirectory(root, image_root, info, tuple(rows))


def read_info(root: Path) -> DatasetInfo:
    """Read `dataset.json`.

    Raises:
        DataError: missing or faulty.
    """
    return parse_record(DatasetInfo, read_json(root / INFO_FILE), root / INFO_FILE)


def refuse_changed_rows(root: Path, info: DatasetInfo) -> None:
    """Raise `DataError` if `ad_pl.jsonl` is not the file that `dataset.json` was written for."""
    digest = file_sha256(root / ROWS_FILE)
    if digest != info.sha256:
        problem = f"field 'sha256': is {info.sha256[:12]}..., but {ROWS_FILE} has {digest[:12]}..."
        remedy = f"{ROWS_FILE} was changed or cut short: build the dataset anew, or correct sha256 if that is meant"
        raise DataError.at(root / INFO_FILE, None, problem, remedy)


def _refuse_missing_images(root: Path, image_root: Path, row: Inspection, number: int) -> None:
    for field in ("test_image", "reference_image"):
        relative = getattr(row, field)
        if relative is not None and not (image_root / relative).is_file():
            problem = f"field {field!r}: no image at {image_root / relative}"
            raise DataError.at(root / ROWS_FILE, number, problem, "restore the image or remove the group")


def write_ad_pl(directory: Path, inspections: Iterable[Inspection], info: DatasetInfo) -> DatasetInfo:
    """Write `ad_pl.jsonl` and `dataset.json`, each whole or not at all.

    Split counts and digest of `info` are set to what was written.

    Returns:
        The info as written.
    """
    rows = list(inspections)
    write_jsonl(directory / ROWS_FILE, (row.model_dump(mode="json") for row in rows))
    written = info.model_copy(
        update={
            "splits": dict(Counter(row.split for row in rows)),
            "sha256": file_sha256(directory / ROWS_FILE),
        }
    )
    write_json(directory / INFO_FILE, written.model_dump(mode="json"))
    return written
