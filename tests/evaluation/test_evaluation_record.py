"""`evaluation.json` says what the results beside it were measured on, over several runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sage_trl.errors import DataError
from sage_trl.evaluation.evaluation_record import (
    EvaluationRecord,
    dataset_has_changed,
    evaluated_models,
    note_evaluation,
    refuse_other_dataset,
)
from sage_trl.storage import read_json, write_json


def record(**changes: Any) -> EvaluationRecord:
    fields: dict[str, Any] = {
        "dataset": "/data/ad_pl",
        "facts": "/data/ad_pl/facts.jsonl",
        "seed": 0,
        "splits": ["test"],
        "settings": ["one_shot"],
        "models": {"sfe": "runs/sfe"},
    }
    return EvaluationRecord(**{**fields, **changes})


def test_later_runs_add_to_what_is_there(tmp_path: Path) -> None:
    note_evaluation(tmp_path, record())
    note_evaluation(
        tmp_path,
        record(facts=None, seed=3, splits=["unseen", "test"], settings=["zero_shot"], models={"base": "hf:base"}),
    )

    assert read_json(tmp_path / "evaluation.json") == {
        "version": 1,
        "dataset": "/data/ad_pl",
        "dataset_sha256": None,
        "facts": "/data/ad_pl/facts.jsonl",
        "seed": 3,
        "splits": ["test", "unseen"],
        "settings": ["one_shot", "zero_shot"],
        "models": {"sfe": "runs/sfe", "base": "hf:base"},
    }


def test_results_of_another_dataset_stay_apart(tmp_path: Path) -> None:
    note_evaluation(tmp_path, record())
    refuse_other_dataset(tmp_path, Path("/data/ad_pl"))

    with pytest.raises(DataError, match=r"evaluation\.json: the results here are of the dataset /data/ad_pl, not"):
        refuse_other_dataset(tmp_path, Path("/data/other"))


def test_models_and_rows_of_earlier_runs_are_known(tmp_path: Path) -> None:
    assert evaluated_models(tmp_path) == {}
    note_evaluation(tmp_path, record())
    assert not dataset_has_changed(tmp_path, "a"), "written before it was noted"
    note_evaluation(tmp_path, record(dataset_sha256="a", models={"base": "hf:base"}))

    assert evaluated_models(tmp_path) == {"sfe": "runs/sfe", "base": "hf:base"}
    assert not dataset_has_changed(tmp_path, "a")
    assert dataset_has_changed(tmp_path, "b")


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    write_json(tmp_path / "evaluation.json", {"version": 2})

    with pytest.raises(DataError, match=r"evaluation\.json"):
        refuse_other_dataset(tmp_path, Path("/data/ad_pl"))
