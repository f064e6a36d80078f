"""`facts.jsonl` and `scores.jsonl` against the rows they belong to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sage_trl.data.checks.answers import placeholder_faults
from sage_trl.data.checks.findings import Finding, error, from_exception, warning
from sage_trl.data.checks.pictures import Picture
from sage_trl.data.checks.rows import GroupNote, validate
from sage_trl.errors import DataError
from sage_trl.records import FactSet, JudgeScore, Record
from sage_trl.storage import read_json_lines

_WRITE_FACTS = "run tools/generate_facts.py, which completes the file"
_WRITE_SCORES = "run tools/score_mle.py on this dataset"


def fact_faults(
    path: Path, groups: Sequence[GroupNote], pictures: Mapping[str, Picture], rows_path: Path
) -> Iterator[Finding]:
    """Faulty lines of an existing `facts.jsonl`, test images without facts, and facts of no image of the dataset."""
    lines: dict[str, int] = {}
    writers: set[tuple[str, str]] = set()
    for line, row, faults in _records(FactSet, path):
        yield from faults
        if row is None:
            continue
        if row.test_image_sha256 in lines:
            problem = f"this image has facts on line {lines[row.test_image_sha256]} already"
            remedy = "keep one line per image"
            field, value = "test_image_sha256", row.test_image_sha256
            yield error("facts-duplicate", path, problem, remedy, line=line, field=field, value=value)
        lines.setdefault(row.test_image_sha256, line)
        writers.add((row.model, row.prompt_version))
        yield from placeholder_faults(((f"facts.{at}", fact) for at, fact in enumerate(row.facts)), path, line)
    shown = {pictures[group.images["test_image"]].sha256 for group in _with_picture(groups, pictures)}
    told: set[str] = set()
    for group in _with_picture(groups, pictures):
        relative = group.images["test_image"]
        if pictures[relative].sha256 in lines or relative in told:
            continue
        told.add(relative)
        problem = f"no facts for this test image in {path}"
        field = "test_image"
        yield error("facts-missing", rows_path, problem, _WRITE_FACTS, line=group.line, field=field, value=relative)
    strangers = [line for sha256, line in lines.items() if sha256 not in shown]
    if strangers and all(group.images.get("test_image") in pictures for group in groups):
        problem = f"{len(strangers)} lines belong to no test image of the dataset"
        yield warning(
            "facts-unused", path, problem, "remove them, or leave them: nothing reads them", line=strangers[0]
        )
    if len(writers) > 1:
        problem = f"facts by {len(writers)} writers: {', '.join(sorted(f'{model} ({how})' for model, how in writers))}"
        yield warning("facts-mixed", path, problem, "write all facts with one model and one prompt")


def _with_picture(groups: Sequence[GroupNote], pictures: Mapping[str, Picture]) -> Iterator[GroupNote]:
    return (group for group in groups if group.images.get("test_image") in pictures)


def score_faults(path: Path, groups: Sequence[GroupNote], rows_path: Path) -> Iterator[Finding]:
    """Faulty lines of an existing `scores.jsonl`, scores of no answer of the dataset, and answers without a score."""
    wanted = {(group.id, question.id): question.answers for group in groups for question in group.questions}
    # Nothing is said of the scores of a row that could not be read.
    unread = {group.id for group in groups if not group.questions}
    scored: dict[tuple[str, str], dict[int, int]] = {}
    judges: set[str] = set()
    for line, row, faults in _records(JudgeScore, path):
        yield from faults
        if row is None or row.group_id in unread:
            continue
        judges.add(row.judge)
        key = (row.group_id, row.question_id)
        value = f"{row.group_id}/{row.question_id} answer {row.answer_index}"
        place: dict[str, Any] = {"line": line, "field": "answer_index", "value": value}
        if row.answer_index >= wanted.get(key, 0):
            problem = "no such answer in the dataset"
            yield error("scores-unknown", path, problem, f"remove the line, or {_WRITE_SCORES}", **place)
            continue
        lines = scored.setdefault(key, {})
        if row.answer_index in lines:
            problem = f"this answer has a score on line {lines[row.answer_index]} already"
            yield error("scores-duplicate", path, problem, "keep one line per answer", **place)
        lines.setdefault(row.answer_index, line)
    for group in groups:
        for index, question in enumerate(group.questions):
            lacking = set(range(question.answers)) - scored.get((group.id or "", question.id), {}).keys()
            if lacking:
                problem = f"answers {sorted(lacking)} have no score in {path}"
                place = {"line": group.line, "field": f"questions.{index}", "value": question.id}
                yield error("scores-missing", rows_path, problem, _WRITE_SCORES, **place)
    if len(judges) > 1:
        problem = f"scores by {len(judges)} judges: {', '.join(sorted(judges))}"
        yield warning("scores-mixed", path, problem, "score all answers with one judge")


def _records(kind: type[Record], path: Path) -> Iterator[tuple[int, Any, list[Finding]]]:
    """(line, record or None, faults) of every line."""
    for line, value in read_json_lines(path):
        if isinstance(value, DataError):
            yield line, None, [from_exception("record", value, path)]
        else:
            yield line, *validate(kind, value, path, line)
