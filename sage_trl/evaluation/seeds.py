"""One table of what several seeds, each with an evaluation of its own, give: the mean, every seed, and the interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

from pydantic import Field
from rich.table import Table

from sage_trl.errors import DataError
from sage_trl.evaluation.report import percent
from sage_trl.evaluation.results_files import METRICS_FILE, Results, read_metrics
from sage_trl.records import Record

SEED_FIGURES = {
    "accuracy": "accuracy",
    "accuracy_macro": "macro",
    "acc_g": "Acc-G",
    "balanced_accuracy": "balanced",
    "f1": "F1",
}
"""Figures of `metrics.json` that the table shows, all of them fractions, and the heads of their columns."""


class SeedFigure(Record):
    """One figure over its seeds.

    `mean` is None where some seed has no such figure. `interval` reaches from the lowest to the highest bound of the
    seeds' own 95% intervals over physical units, so it holds what may come of other units and of other seeds; None
    where some seed has none.
    """

    mean: float | None
    seeds: Annotated[tuple[float | None, ...], Field(strict=False)]
    interval: Annotated[tuple[float, float], Field(strict=False)] | None


def over_seeds(values: Sequence[float | None], intervals: Sequence[Sequence[float] | None]) -> SeedFigure:
    """Sum up one figure.

    Args:
        values: each seed's.
        intervals: each seed's, in the same order.
    """
    known = [value for value in values if value is not None]
    bounds = [interval for interval in intervals if interval is not None]
    is_whole = len(known) == len(values) and len(bounds) == len(values)
    return SeedFigure(
        mean=fmean(known) if known and len(known) == len(values) else None,
        seeds=tuple(values),
        interval=(min(low for low, _ in bounds), max(high for _, high in bounds)) if is_whole and bounds else None,
    )


def collect_seeds(runs: Sequence[Path]) -> dict[str, dict[str, dict[str, SeedFigure]]]:
    """Sum up evaluations of the same models, trained from several seeds, on the same questions.

    Args:
        runs: output directories of `tools/evaluate.py`, one a seed.

    Returns:
        model -> setting -> figure -> over the seeds.

    Raises:
        DataError: a run has no results, lacks a model or a setting of the first, or was asked other questions.
    """
    first, *others = [(run, read_metrics(run / METRICS_FILE)) for run in runs]
    for other in others:
        _check_same(first, other)
    return {
        model: {
            setting: _figures([results[model][setting] for _, results in (first, *others)]) for setting in by_setting
        }
        for model, by_setting in first[1].items()
    }


def _check_same(first: tuple[Path, Results], other: tuple[Path, Results]) -> None:
    def asked(results: Results) -> dict[tuple[str, str], int]:
        return {
            (model, key): figures["questions"] for model, entry in results.items() for key, figures in entry.items()
        }

    ours, theirs = asked(first[1]), asked(other[1])
    for name in sorted(ours.keys() | theirs.keys()):
        if ours.get(name) != theirs.get(name):
            counts = " but ".join(
                f"{numbers.get(name, 'none')} in {run}" for numbers, (run, _) in ((ours, first), (theirs, other))
            )
            problem = f"questions to {name[0]!r} in {name[1]!r}: {counts}"
            raise DataError(f"{problem}\n  remedy: give evaluations of the same models, dataset, splits and settings")


def _figures(seeds: Sequence[Mapping[str, Any]]) -> dict[str, SeedFigure]:
    return {
        name: over_seeds([seed.get(name) for seed in seeds], [seed["intervals"].get(name) for seed in seeds])
        for name in SEED_FIGURES
    }


def seeds_table(collected: Mapping[str, Mapping[str, Mapping[str, SeedFigure]]]) -> Table:
    """One row per model and setting, in percent: for each figure the mean, the interval and every seed."""
    table = Table()
    for column in ("model", "setting"):
        table.add_column(column, no_wrap=True)
    for title in SEED_FIGURES.values():
        for column in (title, "95%", "each seed"):
            table.add_column(column, justify="right", no_wrap=True)
    for model, by_setting in collected.items():
        for setting, figures in by_setting.items():
            table.add_row(model, setting, *(cell for name in SEED_FIGURES for cell in _cells(figures[name])))
    return table


def _cells(figure: SeedFigure) -> tuple[str, str, str]:
    interval = "-" if figure.interval is None else "-".join(f"{100 * bound:.0f}" for bound in figure.interval)
    return percent(figure.mean), interval, " / ".join(map(percent, figure.seeds))
