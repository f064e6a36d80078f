"""What `make demo` ends with: `summary.json` and one table of all stages, settings, splits and controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from rich.table import Table

from sage_trl.errors import DataError
from sage_trl.evaluation.predictions import SETTINGS, results_key
from sage_trl.evaluation.report import figure_cells, figures_table
from sage_trl.evaluation.results_files import METRICS_FILE, Results, read_metrics
from sage_trl.storage import write_json

STAGES = ("sft", "sfe", "dpo", "edpo")
STAGE_NAMES = {"sft": "SFT, no facts", "sfe": "SFE", "dpo": "SFE + DPO", "edpo": "SFE + E-DPO"}
SUMMARY_FILE = "summary.json"
_COPIED = ("accuracy", "acc_g", "unreadable", "majority_accuracy", "accuracy_by_level", "questions")


def demo_summary(results: Results, splits: Sequence[str], source: Path) -> list[dict[str, Any]]:
    """One entry per stage, setting and split; fractions 0-1, `mle_rule` the mean of 1-5, counts as whole numbers.

    Args:
        results: model (the stage's name) -> `results_key` -> figures.
        splits: the splits that were evaluated.
        source: where the results were read, for the error.

    Raises:
        DataError: a result is missing.
    """
    summary = []
    for stage, setting, split in product(STAGES, SETTINGS, splits):
        metrics = _entry(results, stage, results_key(setting, split, None), source)
        scores = metrics["mle_rule"]
        summary.append(
            {
                "stage": stage,
                "setting": setting,
                "split": split,
                **{name: metrics[name] for name in _COPIED},
                "mle_rule": None if scores is None else scores["mean"],
            }
        )
    return summary


def demo_table(
    results: Results, splits: Sequence[str], controls: Sequence[tuple[str, str]], source: Path, title: str
) -> Table:
    """All results, one section per split and setting, and below them the controls.

    Args:
        results: model (the stage's name) -> `results_key` -> figures.
        splits: the splits that were evaluated.
        controls: (stage, control) pairs, measured one-shot.
        source: where the results were read, for the error.
        title: printed above the table.
    """
    table = figures_table(title, ["split", "setting", "model"])
    for split, setting in product(splits, reversed(SETTINGS)):
        for stage in STAGES:
            metrics = _entry(results, stage, results_key(setting, split, None), source)
            table.add_row(split, setting, STAGE_NAMES[stage], *figure_cells(metrics))
        table.add_section()
    for split in splits:
        for stage, control in controls:
            metrics = _entry(results, stage, results_key("one_shot", split, control), source)
            table.add_row(split, "one_shot", f"{STAGE_NAMES[stage]}, {control}", *figure_cells(metrics))
        table.add_section()
    return table


def write_demo_summary(
    output: Path, evaluation: Path, splits: Sequence[str], controls: Sequence[tuple[str, str]], title: str
) -> Table:
    """Write `summary.json` below `output` from the metrics below `evaluation`; returns the table to print."""
    source = evaluation / METRICS_FILE
    results = read_metrics(source)
    write_json(output / SUMMARY_FILE, demo_summary(results, splits, source))
    return demo_table(results, splits, controls, source, title)


def _entry(results: Results, stage: str, key: str, source: Path) -> Mapping[str, Any]:
    try:
        return results[stage][key]
    except KeyError:
        raise DataError.at(source, None, f"no result {key!r} of {stage!r}", "run tools/evaluate.py for it") from None
