"""The metrics file and the tables."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sage_trl.errors import DataError
from sage_trl.evaluation.demo_summary import STAGES, demo_summary, write_demo_summary
from sage_trl.evaluation.predictions import SETTINGS, results_key
from sage_trl.evaluation.report import FIGURE_COLUMNS, count_notes, figure_cells, print_table, results_table
from sage_trl.evaluation.results_files import merge_metrics
from sage_trl.storage import read_json

CONTROLS = [("sfe", "blank_image"), ("sfe", "no_facts")]


def figures(accuracy: float | None = 0.8) -> dict[str, Any]:
    return {
        "accuracy": accuracy,
        "accuracy_by_level": {"standard_comparison": 0.9},
        "accuracy_macro": accuracy,
        "acc_g": 0.25,
        "acc_g_by_level": {"standard_comparison": 0.25},
        "unreadable": 3,
        "questions": 40,
        "open": 0,
        "groups": 8,
        "majority_accuracy": 0.5,
        "sbert": None,
        "mle_rule": {"type": 4.0, "location": 3.0, "logic": 2.0, "mean": 3.0},
        "intervals": {"accuracy": [0.7, 0.9], "acc_g": [0.0, 0.5]},
    }


def demo_results(splits: list[str]) -> dict[str, dict[str, Any]]:
    results = {
        stage: {results_key(setting, split, None): figures() for setting in SETTINGS for split in splits}
        for stage in STAGES
    }
    for stage, control in CONTROLS:
        results[stage] |= {results_key("one_shot", split, control): figures(0.5) for split in splits}
    return results


def test_table_shows_fractions_as_percentages() -> None:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(results_table({"sfe": {"one_shot": figures(), "zero_shot": figures(None)}}))

    first, second = [line for line in console.export_text().splitlines() if "_shot" in line]
    assert [cell.strip() for cell in first.strip("│").split("│")] == (
        ["sfe", "one_shot", "80.0", "70-90", "90.0", "-", "-", "80.0", "25.0", "50.0", "3", "3.00", "40", *"-----"]
    )
    assert [cell.strip() for cell in second.strip("│").split("│")][2] == "-"


@pytest.mark.parametrize(
    ("mle", "unscored", "cell"), [(3.456, 0, "3.46"), (3.456, 2, "3.46 (2 unscored)"), (None, 8, "- (8 unscored)")]
)
def test_scores_of_a_model_say_how_many_are_lacking(mle: float | None, unscored: int, cell: str) -> None:
    scores = None if mle is None else {"type": 4.0, "location": 3.0, "logic": 2.0, "mean": mle}

    cells = figure_cells({**figures(), "mle": scores, "mle_unscored": unscored})
    assert dict(zip(FIGURE_COLUMNS, cells, strict=True))["MLE"] == cell


def test_what_the_table_does_not_tell_of_its_rows_is_noted() -> None:
    whole = {**figures(), "group_sizes": {"5": 8}, "acc_g_by_size": {"5": 0.25}, "missing": 0, "doubled": 0}
    lacking = {**whole, "group_sizes": {"3": 4, "5": 8}, "acc_g_by_size": {"3": 0.5, "5": 0.25}}

    assert count_notes({"sfe": {"one_shot": whole, "zero_shot": figures()}}) == []
    notes = count_notes({"sfe": {"one_shot": {**lacking, "limit": 12, "missing": 2, "doubled": 1, "open": 3}}})
    assert [note.removeprefix("sfe, one_shot: ").partition(":")[0] for note in notes] == [
        "Acc-G by size of group",
        "only the first 12 groups of the split were asked (--limit)",
        "2 questions got no reply",
        "1 rows repeat a question and were counted once",
        "3 questions have no true answer and were not graded",
    ]
    assert notes[0].endswith("50.0% of 4 with 3 questions, 25.0% of 8 with 5 questions")


def test_a_table_is_printed_whole_on_a_narrow_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(results_table({"a_model_with_a_long_name": {"one_shot@unseen+shuffled_reference": figures()}}))

    assert "one_shot@unseen+shuffled_reference" in capsys.readouterr().out


def test_demo_summary(tmp_path: Path) -> None:
    merge_metrics(tmp_path / "evaluation", demo_results(["test", "unseen"]))

    table = write_demo_summary(tmp_path, tmp_path / "evaluation", ["test", "unseen"], CONTROLS, "demo")

    summary = read_json(tmp_path / "summary.json")
    assert len(summary) == 4 * 2 * 2
    assert summary[0] == {
        "stage": "sft",
        "setting": "zero_shot",
        "split": "test",
        "accuracy": 0.8,
        "acc_g": 0.25,
        "mle_rule": 3.0,
        "unreadable": 3,
        "majority_accuracy": 0.5,
        "accuracy_by_level": {"standard_comparison": 0.9},
        "questions": 40,
    }
    assert table.row_count == 4 * 2 * 2 + 2 * len(CONTROLS)


def test_demo_summary_names_a_missing_result(tmp_path: Path) -> None:
    results = demo_results(["test"])
    del results["dpo"]["one_shot"]

    with pytest.raises(DataError, match="no result 'one_shot' of 'dpo'"):
        demo_summary(results, ["test"], tmp_path / "metrics.json")
