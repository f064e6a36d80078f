"""`evaluation.json`: what the results in an output directory were measured on."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from sage_trl.errors import DataError
from sage_trl.records import Record, parse_record
from sage_trl.storage import read_json, write_json

EVALUATION_FILE = "evaluation.json"


class EvaluationRecord(Record):
    """What all evaluations into one output directory were asked to do.

    `dataset` and `facts` are whole paths, `facts` is None if no model took any; `settings` are those of predictions;
    `models` maps the names of the results to what `--model` said, directories as whole paths. `seed` and
    `dataset_sha256`, of `ad_pl.jsonl`, are those of the last run; old files lack the latter.
    """

    version: Literal[1] = 1
    dataset: str
    dataset_sha256: str | None = None
    facts: str | None
    seed: int
    splits: list[str]
    settings: list[str]
    models: dict[str, str]


def refuse_other_dataset(output: Path, dataset: Path) -> None:
    """Refuse an output directory that holds results of another dataset: they would take each other's place.

    Raises:
        DataError: it does, or its `evaluation.json` is damaged.
    """
    path = output / EVALUATION_FILE
    before = _read(path)
    if before is not None and before.dataset != str(dataset.resolve()):
        raise DataError.at(
            path,
            None,
            f"the results here are of the dataset {before.dataset}, not of {dataset.resolve()}",
            "give another --output, or remove this file if the dataset was only moved",
        )


def dataset_has_changed(output: Path, sha256: str) -> bool:
    """Whether the last run into an output directory was on other rows."""
    before = _read(output / EVALUATION_FILE)
    return before is not None and before.dataset_sha256 not in (None, sha256)


def evaluated_models(output: Path) -> dict[str, str]:
    """The models whose results an output directory holds, as `EvaluationRecord.models`."""
    before = _read(output / EVALUATION_FILE)
    return {} if before is None else before.models


def note_evaluation(output: Path, record: EvaluationRecord) -> None:
    """Write `evaluation.json` below `output`; what earlier runs into it did is kept."""
    path = output / EVALUATION_FILE
    before = _read(path)
    if before is not None:
        changes = {
            "facts": record.facts or before.facts,
            "splits": _union(before.splits, record.splits),
            "settings": _union(before.settings, record.settings),
            "models": {**before.models, **record.models},
        }
        record = record.model_copy(update=changes)
    write_json(path, record.model_dump(mode="json"))


def _read(path: Path) -> EvaluationRecord | None:
    return parse_record(EvaluationRecord, read_json(path), path) if path.exists() else None


def _union(before: list[str], now: list[str]) -> list[str]:
    return list(dict.fromkeys([*before, *now]))
