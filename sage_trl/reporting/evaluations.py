"""Reads what an evaluation left in its output directory, as far as it is there."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from sage_trl.evaluation.evaluation_record import EVALUATION_FILE, EvaluationRecord
from sage_trl.evaluation.evidence_rows import EVIDENCE_FILE, EvidenceRow
from sage_trl.evaluation.judgements import JUDGEMENTS_FILE, JudgedReply
from sage_trl.evaluation.predictions import PREDICTIONS_FILE, Prediction
from sage_trl.evaluation.results_files import COMPARISONS_FILE, METRICS_FILE, Results, read_comparisons, read_metrics
from sage_trl.records import parse_record
from sage_trl.reporting.conditions import Condition
from sage_trl.reporting.folders import EvaluationFolder, shortest_names
from sage_trl.storage import read_json, read_whole_json_lines


class Place(NamedTuple):
    """Which reply: one model's to one question under one condition."""

    model: str
    condition: Condition
    group_id: str
    question_id: str


class GroupPlace(NamedTuple):
    """Which look of a model at a group's images."""

    model: str
    condition: Condition
    group_id: str


@dataclass(frozen=True)
class Evaluation:
    """One output directory of `tools/evaluate.py`; `label` and model names are those that the report shows.

    `dataset` and `facts` are where they were when it was run, None where nothing says so.
    """

    path: Path
    label: str
    dataset: Path | None
    facts: Path | None
    results: Results
    comparisons: Sequence[Mapping[str, Any]]
    replies: Mapping[Place, Prediction]
    judgements: Mapping[Place, Sequence[JudgedReply]]
    evidence: Mapping[GroupPlace, EvidenceRow]

    @property
    def models(self) -> list[str]:
        """All models that it measured, in the order it did."""
        return list(dict.fromkeys([*self.results, *(place.model for place in self.replies)]))


def read_evaluations(folders: Sequence[EvaluationFolder]) -> list[Evaluation]:
    """Read the output directories; a model name that several of them have gets its directory's label added.

    A label is the shortest end of the directory's path that no other directory here has.

    Raises:
        DataError: a file there is damaged.
    """
    labels = shortest_names([folder.path.resolve() for folder in folders])
    read = [_read(folder, label) for folder, label in zip(folders, labels, strict=True)]
    owners = Counter(model for evaluation in read for model in evaluation.models)
    return [_renamed(evaluation, {model for model, count in owners.items() if count > 1}) for evaluation in read]


def _read(folder: EvaluationFolder, label: str) -> Evaluation:
    path = folder.path
    record = None
    if (path / EVALUATION_FILE).is_file():
        record = parse_record(EvaluationRecord, read_json(path / EVALUATION_FILE), path / EVALUATION_FILE)
    # A later line of the same question is of a later run.
    replies = {_place(row): row for row in _records(Prediction, path / PREDICTIONS_FILE)}
    judgements: defaultdict[Place, list[JudgedReply]] = defaultdict(list)
    for row in _records(JudgedReply, path / JUDGEMENTS_FILE):
        reply = replies.get(_place(row))
        if reply is None or row.key in (None, reply.key):
            judgements[_place(row)].append(row)
    return Evaluation(
        path=path,
        label=label,
        dataset=folder.dataset if record is None else Path(record.dataset),
        facts=None if record is None or record.facts is None else Path(record.facts),
        results=read_metrics(path / METRICS_FILE) if (path / METRICS_FILE).is_file() else {},
        comparisons=read_comparisons(path / COMPARISONS_FILE) if (path / COMPARISONS_FILE).is_file() else [],
        replies=replies,
        judgements=dict(judgements),
        evidence={_group_place(row): row for row in _records(EvidenceRow, path / EVIDENCE_FILE)},
    )


def _records(kind: Any, path: Path) -> list[Any]:
    """The file's records but for a last line that a kill cut short, which the next evaluation drops as well."""
    if not path.is_file():
        return []
    return [parse_record(kind, value, path, line) for line, value in read_whole_json_lines(path)]


def _place(row: Prediction | JudgedReply) -> Place:
    return Place(row.model, Condition(row.setting, row.split, row.control), row.group_id, row.question_id)


def _group_place(row: EvidenceRow) -> GroupPlace:
    return GroupPlace(row.model, Condition(row.setting, row.split, row.control), row.group_id)


def _renamed(evaluation: Evaluation, shared: set[str]) -> Evaluation:
    if not shared.intersection(evaluation.models):
        return evaluation

    def name(model: str) -> str:
        return f"{model} ({evaluation.label})" if model in shared else model

    return replace(
        evaluation,
        results={name(model): found for model, found in evaluation.results.items()},
        comparisons=[
            {**entry, "first": name(entry["first"]), "second": name(entry["second"])}
            for entry in evaluation.comparisons
        ],
        replies={place._replace(model=name(place.model)): row for place, row in evaluation.replies.items()},
        judgements={place._replace(model=name(place.model)): rows for place, rows in evaluation.judgements.items()},
        evidence={place._replace(model=name(place.model)): row for place, row in evaluation.evidence.items()},
    )
