"""`judgements.jsonl`: the scores of every judged reply, by the rule judge and by language models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from sage_trl.evaluation.predictions import Control, Prediction, Setting
from sage_trl.judge.criteria import CriterionScores
from sage_trl.records import Record, Score, Text, iterate_records
from sage_trl.storage import write_jsonl

JUDGEMENTS_FILE = "judgements.jsonl"


class JudgedReply(Record):
    """One line: what a judge gave to one reply. A reply without a score has no line.

    `key` is that of the reply's prediction, None in files written before it was noted.
    """

    key: str | None = None
    model: Text
    setting: Setting
    split: Text
    control: Control | None
    group_id: Text
    question_id: Text
    judge: Text
    type: Score
    location: Score
    logic: Score
    rationale: str | None


class Judged(NamedTuple):
    """Whose replies were judged, under which condition, and by whom."""

    model: str
    setting: Setting
    split: str
    control: Control | None
    judge: str


def judged_reply(
    prediction: Prediction, judge: str, scores: CriterionScores, rationale: str | None = None
) -> JudgedReply:
    """The line of one reply."""
    return JudgedReply(
        key=prediction.key,
        model=prediction.model,
        setting=prediction.setting,
        split=prediction.split,
        control=prediction.control,
        group_id=prediction.group_id,
        question_id=prediction.question_id,
        judge=judge,
        type=scores.type,
        location=scores.location,
        logic=scores.logic,
        rationale=rationale,
    )


def merge_judgements(output: Path, judged: Mapping[Judged, Sequence[JudgedReply]]) -> None:
    """Put the lines into `judgements.jsonl` below `output`, keeping those of other models, conditions and judges.

    Raises:
        DataError: the file that is there is damaged.
    """
    path = output / JUDGEMENTS_FILE
    blocks: dict[Judged, list[JudgedReply]] = {}
    if path.exists():
        for _, row in iterate_records(JudgedReply, path):
            blocks.setdefault(Judged(row.model, row.setting, row.split, row.control, row.judge), []).append(row)
    blocks.update({key: list(rows) for key, rows in judged.items()})
    write_jsonl(path, (row.model_dump(mode="json") for rows in blocks.values() for row in rows))
