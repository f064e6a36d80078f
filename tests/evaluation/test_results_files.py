"""`metrics.json` and `comparisons.json` over several runs: what stays, what goes, and what is said of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sage_trl.errors import DataError
from sage_trl.evaluation.results_files import drop_comparisons, merge_comparisons, merge_metrics, read_metrics
from sage_trl.storage import read_json, write_json
from tests.evaluation.test_report import figures

SCORED = {
    "mle": {"type": 4.0, "location": 3.0, "logic": 2.0, "mean": 3.0},
    "mle_unscored": 2,
    "sbert": 0.5,
    "intervals": {"accuracy": [0.1, 0.2], "mle/mean": [2.5, 3.5], "mle_rule/mean": [1.0, 2.0], "sbert": [0.4, 0.6]},
}


def of(replies: str | None, **changes: Any) -> dict[str, Any]:
    unscored = {"mle_rule": None, "mle": None, "mle_unscored": 0, "sbert": None}
    return {**figures(), **unscored, "replies_sha256": replies, **changes}


def comparison(first: str, second: str, setting: str = "one_shot", questions: int = 8) -> dict[str, Any]:
    return {"setting": setting, "first": first, "second": second, "questions": questions}


def test_merging_keeps_other_models_and_settings(tmp_path: Path) -> None:
    merge_metrics(tmp_path, {"sfe": {"one_shot": figures(0.1)}})
    merge_metrics(tmp_path, {"sfe": {"zero_shot": figures(0.2)}, "edpo": {"one_shot": figures(0.3)}})
    merge_metrics(tmp_path, {"sfe": {"one_shot": figures(0.4)}})

    merged = read_metrics(tmp_path / "metrics.json")
    assert merged["sfe"]["one_shot"]["accuracy"] == 0.4
    assert merged["sfe"]["zero_shot"]["accuracy"] == 0.2
    assert merged["edpo"]["one_shot"]["accuracy"] == 0.3


def test_scores_of_the_same_replies_stay_with_their_intervals(tmp_path: Path) -> None:
    said: list[str] = []
    rule = {"mle_rule": {"type": 1.0, "location": 1.0, "logic": 1.0, "mean": 1.0}}
    merge_metrics(tmp_path, {"sfe": {"one_shot": of("a", **SCORED)}})

    kept = merge_metrics(
        tmp_path, {"sfe": {"one_shot": of("a", **rule, intervals={"mle_rule/mean": [0.5, 1.5]})}}, said.append
    )

    entry = read_metrics(tmp_path / "metrics.json")["sfe"]["one_shot"]
    assert (entry, said) == (kept["sfe"]["one_shot"], [])
    assert (entry["mle"], entry["mle_unscored"], entry["sbert"]) == (SCORED["mle"], 2, 0.5)
    assert entry["mle_rule"] == rule["mle_rule"]
    # What was measured this time is of this time.
    assert entry["intervals"] == {"mle_rule/mean": [0.5, 1.5], "mle/mean": [2.5, 3.5], "sbert": [0.4, 0.6]}


@pytest.mark.parametrize(("before", "now"), [("a", "b"), (None, "b"), ("a", None), (None, None)])
def test_scores_of_other_replies_go_and_are_named(tmp_path: Path, before: str | None, now: str | None) -> None:
    said: list[str] = []
    merge_metrics(tmp_path, {"sfe": {"one_shot": of(before, **SCORED)}}, said.append)
    assert said == []

    merge_metrics(tmp_path, {"sfe": {"one_shot": of(now)}}, said.append)

    entry = read_metrics(tmp_path / "metrics.json")["sfe"]["one_shot"]
    assert (entry["mle"], entry["mle_unscored"], entry["sbert"]) == (None, 0, None)
    [note] = said
    assert note.startswith("sfe, one_shot: dropped sbert, mle of an earlier run")


def test_a_judge_that_scored_nothing_leaves_no_score(tmp_path: Path) -> None:
    merge_metrics(tmp_path, {"sfe": {"one_shot": of("a", **SCORED)}})
    merge_metrics(tmp_path, {"sfe": {"one_shot": of("a", mle_unscored=8)}})

    entry = read_metrics(tmp_path / "metrics.json")["sfe"]["one_shot"]
    assert (entry["mle"], entry["mle_unscored"], entry["sbert"]) == (None, 8, 0.5)


@pytest.mark.parametrize("content", [[], {"sfe": 0.5}, {"sfe": {"one_shot": 0.5}}])
def test_a_file_that_holds_something_else_is_not_overwritten(tmp_path: Path, content: Any) -> None:
    write_json(tmp_path / "metrics.json", content)

    with pytest.raises(DataError, match=r"metrics.json: is not"):
        merge_metrics(tmp_path, {"sfe": {"one_shot": figures()}})

    assert read_json(tmp_path / "metrics.json") == content


def test_comparisons_of_other_models_and_settings_stay(tmp_path: Path) -> None:
    old = [comparison("sfe", "sft"), comparison("sfe", "sft", "zero_shot"), comparison("sfe", "edpo")]
    merge_comparisons(tmp_path, old)
    # The same two in another order are the same comparison.
    merge_comparisons(tmp_path, [comparison("sft", "sfe", questions=9), comparison("sft", "edpo")])

    assert read_json(tmp_path / "comparisons.json") == [
        *(comparison("sft", "sfe", questions=9), comparison("sfe", "sft", "zero_shot")),
        *(comparison("sfe", "edpo"), comparison("sft", "edpo")),
    ]


def test_comparisons_go_with_the_replies_that_they_compared(tmp_path: Path) -> None:
    merge_metrics(tmp_path, {name: {"one_shot": of("a"), "zero_shot": of("a")} for name in ("sfe", "sft", "edpo")})
    old = [comparison("sfe", "sft"), comparison("sft", "edpo"), comparison("sft", "sfe", "zero_shot")]
    merge_comparisons(tmp_path, old)

    drop_comparisons(tmp_path, {"sfe": {"one_shot": of("a"), "zero_shot": of("a")}})
    assert read_json(tmp_path / "comparisons.json") == old
    drop_comparisons(tmp_path, {"sfe": {"one_shot": of("b")}})
    assert read_json(tmp_path / "comparisons.json") == old[1:]
    drop_comparisons(tmp_path, {"sfe": {"zero_shot": of(None)}})
    assert read_json(tmp_path / "comparisons.json") == old[1:2]


@pytest.mark.parametrize("content", [{}, [1], [{"first": "sfe", "second": "sft"}]])
def test_a_list_of_something_else_is_no_list_of_comparisons(tmp_path: Path, content: Any) -> None:
    write_json(tmp_path / "comparisons.json", content)

    for change in (lambda: merge_comparisons(tmp_path, []), lambda: drop_comparisons(tmp_path, {})):
        with pytest.raises(DataError, match=r"comparisons.json: is no list of comparisons\n.*remedy"):
            change()
