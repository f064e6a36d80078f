"""Reads `ad_pl.jsonl` with all its faults: what can be read of a faulty row is still checked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from sage_trl.data.checks.answers import answer_faults
from sage_trl.data.checks.findings import Finding, error, from_exception, show
from sage_trl.errors import DataError
from sage_trl.records import Inspection, check_relative_path
from sage_trl.storage import read_json_lines

IMAGE_FIELDS = ("test_image", "reference_image")
REMEDY = "see docs/formats.md"


@dataclass(frozen=True, slots=True)
class QuestionNote:
    """What is kept of a question.

    Attributes:
        id: the question's id.
        text: digest of its wording, case and white space apart.
        verdict: the true answer.
        best: digest of a_1's wording.
        answers: how many there are.
    """

    id: str
    text: bytes
    verdict: bool | None
    best: bytes
    answers: int


@dataclass(frozen=True, slots=True)
class GroupNote:
    """What is kept of a group, whose text would fill the memory. None stands for what could not be read.

    Attributes:
        line: its line in `ad_pl.jsonl`.
        content: digest of the whole row.
        images: path of `test_image` and `reference_image`, as far as they are sound.
        is_defective: whether it lists a defect.
        questions: empty for a row that is no valid record.
    """

    line: int
    content: str
    id: str | None
    dataset: str | None
    category: str | None
    split: str | None
    level: str | None
    unit: str | None
    images: dict[str, str]
    is_defective: bool
    questions: tuple[QuestionNote, ...]


def read_groups(path: Path, findings: list[Finding]) -> Iterator[GroupNote]:
    """Note every row and add the faults that a row has by itself to `findings`.

    Args:
        path: an existing `ad_pl.jsonl`.
        findings: added to.
    """
    for line, value in read_json_lines(path):
        if isinstance(value, DataError):
            findings.append(from_exception("record", value, path))
            continue
        row, faults = validate(Inspection, value, path, line)
        findings += faults
        if isinstance(value, dict):
            if row is not None:
                findings += answer_faults(row, path, line)
            yield _note(value, row, line)


def validate(kind: type[BaseModel], value: Any, path: Path, line: int | None) -> tuple[Any, list[Finding]]:
    """`value` as a record of that kind or None, and a finding for each field that keeps it from being one."""
    try:
        return kind.model_validate(value), []
    except ValidationError as refused:
        return None, [
            error(
                "path" if fault["loc"][:1] in {(name,) for name in (*IMAGE_FIELDS, "image_root")} else "record",
                path,
                fault["msg"],
                f"write a valid {kind.__name__}, {REMEDY}",
                line=line,
                field=show(".".join(map(str, fault["loc"]))) or None,
                value=fault.get("input") if fault["type"] != "missing" else None,
            )
            for fault in refused.errors(include_url=False)
        ]


def _note(value: dict[str, Any], row: Inspection | None, line: int) -> GroupNote:
    def text(field: str) -> str | None:
        return value[field] if isinstance(value.get(field), str) else None

    return GroupNote(
        line=line,
        content=_content(value),
        id=text("id"),
        dataset=text("dataset"),
        category=text("category"),
        split=text("split"),
        level=text("level"),
        unit=text("unit"),
        images=dict(_sound_paths(value)),
        is_defective=bool(value.get("defects")),
        questions=() if row is None else tuple(_question_notes(row)),
    )


def _content(value: dict[str, Any]) -> str:
    # Not `content_key`, which refuses what JSON has no words for, such as NaN: here it is only compared.
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=16).hexdigest()


def _sound_paths(value: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for field in IMAGE_FIELDS:
        relative = value.get(field)
        if isinstance(relative, str) and relative.strip():
            try:
                yield field, check_relative_path(relative)
            except ValueError:
                continue  # validation has said so


def _question_notes(row: Inspection) -> Iterable[QuestionNote]:
    for question in row.questions:
        best = digest(question.answers[0])
        yield QuestionNote(question.id, digest(question.question), question.verdict, best, len(question.answers))


def digest(text: str) -> bytes:
    """16 bytes that tell two wordings apart, case and white space apart."""
    return hashlib.blake2b(" ".join(text.casefold().split()).encode(), digest_size=16).digest()
