"""AD-PL as Parquet files that `datasets.load_dataset` reads, with the images inside, and back without a byte's loss.

The column `ad_pl` holds each group's line of `ad_pl.jsonl` as it is; the other columns show the same to whoever uses
`datasets` alone. An image that is left out has its path and SHA-256 all the same.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features, Image, List, Value

from sage_trl.data.dataset import AdPlDirectory
from sage_trl.errors import DataError
from sage_trl.records import Inspection, Question, parse_record
from sage_trl.storage import file_sha256, to_line

IMAGE_FIELDS = ("test_image", "reference_image")
FEATURES = Features(
    {
        "id": Value("string"),
        "dataset": Value("string"),
        "category": Value("string"),
        "level": Value("string"),
        "unit": Value("string"),
        "test_image": Image(),
        "reference_image": Image(),
        "defects": List({"type": Value("string"), "box": List(Value("float64")), "share": Value("float64")}),
        "questions": List(
            {
                "id": Value("string"),
                "question": Value("string"),
                "verdict": Value("bool"),
                "answers": List(Value("string")),
                "options": List({"letter": Value("string"), "text": Value("string")}),
                "choice": Value("string"),
                "type": Value("string"),
            }
        ),
        "licence": Value("string"),
        "test_image_sha256": Value("string"),
        "reference_image_sha256": Value("string"),
        "line": Value("int64"),
        "ad_pl": Value("string"),
    }
)
ROWS_PER_GROUP = 32
"""Rows in memory at a time, for us and for whoever reads the file."""
BYTES_PER_FILE = 400_000_000


@dataclass(frozen=True)
class ImageEntry:
    """An image of a row: its path below the image root, SHA-256, and bytes, None where it was left out."""

    path: str
    sha256: str
    content: bytes | None


@dataclass(frozen=True)
class ParquetRow:
    """A group as it was written: its place in the file, its line, and its images."""

    line: int
    text: str
    images: tuple[ImageEntry, ...]


class ParquetWriter:
    """Writes the groups of a dataset.

    Args:
        dataset: what to write.
        without_images: sources (`dataset` field) whose images are left out.
    """

    def __init__(self, dataset: AdPlDirectory, without_images: Collection[str]) -> None:
        self._dataset = dataset
        self._without = without_images
        self._digests: dict[str, str] = {}

    def write_split(self, split: str, folder: Path) -> list[Path]:
        """Write one split to files of about 400 MB.

        Returns:
            `SPLIT-00000-of-00002.parquet` and so on, in order.
        """
        rows = [(n, row) for n, row in enumerate(self._dataset.inspections) if row.split == split]
        parts = list(self._parts(rows))
        paths = [folder / f"{split}-{number:05d}-of-{len(parts):05d}.parquet" for number in range(len(parts))]
        folder.mkdir(parents=True, exist_ok=True)
        schema = FEATURES.arrow_schema
        for path, part in zip(paths, parts, strict=True):
            with pq.ParquetWriter(path, schema, compression="zstd") as writer:
                for start in range(0, len(part), ROWS_PER_GROUP):
                    chunk = [self._row(line, row) for line, row in part[start : start + ROWS_PER_GROUP]]
                    writer.write_table(pa.Table.from_pylist(chunk, schema=schema))
        return paths

    def _parts(self, rows: list[tuple[int, Inspection]]) -> Iterator[list[tuple[int, Inspection]]]:
        part: list[tuple[int, Inspection]] = []
        size = 0
        for line, row in rows:
            if part and size > BYTES_PER_FILE:
                yield part
                part, size = [], 0
            part.append((line, row))
            if row.dataset not in self._without:
                size += sum(self._dataset.image_path(name).stat().st_size for name in _image_names(row).values())
        yield part

    def _row(self, line: int, row: Inspection) -> dict[str, Any]:
        shown = row.model_dump(mode="json", include=set(FEATURES))
        shown["questions"] = [_shown_question(question) for question in row.questions]
        shown |= {"line": line, "ad_pl": to_line(row.model_dump(mode="json"))}
        shown["licence"] = self._dataset.info.sources.get(row.dataset, self._dataset.info.licence)
        for field in IMAGE_FIELDS:
            name = _image_names(row).get(field)
            shown[f"{field}_sha256"] = None if name is None else self._digest(name)
            left_out = name is None or row.dataset in self._without
            shown[field] = (
                None if left_out else {"bytes": self._dataset.image_path(str(name)).read_bytes(), "path": name}
            )
        return shown

    def _digest(self, name: str) -> str:
        if name not in self._digests:
            self._digests[name] = file_sha256(self._dataset.image_path(name))
        return self._digests[name]


def _shown_question(question: Question) -> dict[str, Any]:
    # Letters differ from question to question, and columns cannot: so options are a list, empty where there are none.
    options = [{"letter": letter, "text": text} for letter, text in (question.options or {}).items()]
    return {**question.model_dump(mode="json"), "options": options}


def read_parquet(path: Path) -> Iterator[ParquetRow]:
    """The groups of a file that `ParquetWriter` wrote.

    Raises:
        DataError: no Parquet file, another one's, or a faulty group.
    """
    wanted = ["line", "ad_pl", *IMAGE_FIELDS, *(f"{field}_sha256" for field in IMAGE_FIELDS)]
    try:
        file = pq.ParquetFile(path)
        lacking = sorted(set(wanted) - set(file.schema_arrow.names))
        if lacking:
            raise DataError.at(path, None, f"has no column {lacking[0]!r}", "load a dataset that --push-to-hub wrote")
        for batch in file.iter_batches(batch_size=ROWS_PER_GROUP, columns=wanted):
            yield from (_parquet_row(values, path) for values in batch.to_pylist())
    except pa.ArrowException as error:
        raise DataError.at(path, None, f"unreadable: {error}", "download it again") from None


def _parquet_row(values: Mapping[str, Any], path: Path) -> ParquetRow:
    try:
        record = json.loads(values["ad_pl"])
    except (TypeError, ValueError) as error:
        raise DataError.at(path, None, f"column 'ad_pl' is not JSON: {error}", "download it again") from None
    row = parse_record(Inspection, record, path, values["line"])
    images = tuple(
        ImageEntry(name, str(values[f"{field}_sha256"]), (values[field] or {}).get("bytes"))
        for field, name in _image_names(row).items()
    )
    return ParquetRow(values["line"], values["ad_pl"], images)


def _image_names(row: Inspection) -> dict[str, str]:
    named = {field: getattr(row, field) for field in IMAGE_FIELDS}
    return {field: name for field, name in named.items() if name is not None}


def published_lines(inspections: Iterable[Inspection]) -> list[str]:
    """The lines of `ad_pl.jsonl` as they come back."""
    return [to_line(row.model_dump(mode="json")) for row in inspections]
