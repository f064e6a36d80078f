"""Results for people: the tables on the terminal and what they do not tell."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from sage_trl.evaluation.results_files import Results

LEVEL_NAMES = {
    "standard_comparison": "comparison",
    "defect_identification": "identification",
    "defect_diagnosis": "diagnosis",
}
FIGURE_COLUMNS = (
    *("accuracy", "95%", *LEVEL_NAMES.values(), "macro", "Acc-G", "majority", "unreadable", "mle_rule", "n"),
    *("balanced", "F1", "SBERT", "MLE", "ECE"),
)

# AD-PL asks five questions on each pair, and the paper's Acc-G is that of such groups.
PAPER_GROUP_SIZE = "5"


def results_table(results: Results, title: str | None = None) -> Table:
    """One row per model and setting: the fractions as percentages, scores 1-5, counts."""
    table = figures_table(title, ["model", "setting"])
    for model, by_setting in results.items():
        for setting, metrics in by_setting.items():
            table.add_row(model, setting, *figure_cells(metrics))
    return table


def count_notes(results: Results) -> list[str]:
    """What the table does not tell of its rows: groups of other sizes, questions that are missing, doubled or open."""
    return [
        f"{model}, {setting}: {note}"
        for model, by_setting in results.items()
        for setting, metrics in by_setting.items()
        for note in _count_notes(metrics)
    ]


def _count_notes(metrics: Mapping[str, Any]) -> Iterator[str]:
    # Files written before these figures existed lack them.
    sizes = metrics.get("group_sizes", {})
    if {*sizes} - {PAPER_GROUP_SIZE}:
        shares = metrics["acc_g_by_size"]
        parts = (f"{percent(shares[size])}% of {count} with {size} questions" for size, count in sizes.items())
        yield f"Acc-G by size of group: {', '.join(parts)}"
    if metrics.get("limit") is not None:
        yield f"only the first {metrics['limit']} groups of the split were asked (--limit)"
    for name, meaning in (
        ("missing", "questions got no reply: they enter no accuracy, and their groups are not right"),
        ("doubled", "rows repeat a question and were counted once"),
        ("open", "questions have no true answer and were not graded"),
    ):
        if metrics.get(name):
            yield f"{metrics[name]} {meaning}"


def mmad_table(results: Results) -> Table | None:
    """MMAD's table, in percent: one row per model, setting and protocol; None if none of its questions was asked."""
    rows = [
        (model, setting, protocol, figures)
        for model, by_setting in results.items()
        for setting, metrics in by_setting.items()
        for protocol, figures in (metrics.get("mmad") or {}).items()
        if figures is not None
    ]
    if not rows:
        return None
    kinds = list(dict.fromkeys(kind for *_, figures in rows for kind in figures["accuracy_by_type"]))
    table = Table(title="MMAD")
    for column in ("model", "setting", "counted as"):
        table.add_column(column, no_wrap=True)
    for column in (*kinds, "average", "95%", "n", "left out"):
        table.add_column(column, justify="right", no_wrap=True)
    for model, setting, protocol, figures in rows:
        low, high = figures["intervals"].get("average", (None, None))
        table.add_row(
            model,
            setting,
            protocol,
            *(percent(figures["accuracy_by_type"].get(kind)) for kind in kinds),
            percent(figures["average"]),
            "-" if low is None else f"{100 * low:.0f}-{100 * high:.0f}",
            str(figures["questions"]),
            str(figures["left_out"]),
        )
    return table


def comparisons_table(comparisons: Iterable[Mapping[str, Any]]) -> Table:
    """One row per pair of models and setting: the difference in points of accuracy and its p-value."""
    table = Table()
    for column in ("first", "second", "setting"):
        table.add_column(column, no_wrap=True)
    for column in ("difference", "only first right", "only second right", "p", "n"):
        table.add_column(column, justify="right", no_wrap=True)
    for entry in comparisons:
        table.add_row(*(entry[name] for name in ("first", "second", "setting")), *comparison_cells(entry))
    return table


def comparison_cells(entry: Mapping[str, Any]) -> list[str]:
    """An entry of `comparisons.json`: difference in points, only first and only second right, p-value, questions."""
    return [
        f"{100 * entry['difference']:+.1f}",
        *(str(entry[name]) for name in ("only_first", "only_second")),
        f"{entry['p_value']:.3g}",
        str(entry["questions"]),
    ]


def figures_table(title: str | None, name_columns: Iterable[str]) -> Table:
    """An empty table with the given columns of names before `FIGURE_COLUMNS`."""
    table = Table(title=title)
    for column in name_columns:
        table.add_column(column, no_wrap=True)
    for column in FIGURE_COLUMNS:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def figure_cells(metrics: Mapping[str, Any]) -> list[str]:
    """The cells of `FIGURE_COLUMNS` for one entry of `metrics.json`."""
    interval = metrics["intervals"].get("accuracy")
    scores = metrics["mle_rule"]
    return [
        percent(metrics["accuracy"]),
        "-" if interval is None else f"{100 * interval[0]:.0f}-{100 * interval[1]:.0f}",
        *(percent(metrics["accuracy_by_level"].get(level)) for level in LEVEL_NAMES),
        percent(metrics["accuracy_macro"]),
        percent(metrics["acc_g"]),
        percent(metrics["majority_accuracy"]),
        str(metrics["unreadable"]),
        "-" if scores is None else f"{scores['mean']:.2f}",
        _answered(metrics),
        # Files written before these figures existed lack them.
        *(percent(metrics.get(name)) for name in ("balanced_accuracy", "f1")),
        "-" if metrics.get("sbert") is None else f"{metrics['sbert']:.3f}",
        _judged(metrics),
        "-" if metrics.get("calibration") is None else f"{metrics['calibration']['expected_calibration_error']:.3f}",
    ]


def _answered(metrics: Mapping[str, Any]) -> str:
    """How many questions were graded, and how many got no reply if some got none."""
    unanswered = metrics.get("unanswered", 0)
    return f"{metrics['questions']} ({unanswered} unanswered)" if unanswered else str(metrics["questions"])


def _judged(metrics: Mapping[str, Any]) -> str:
    """The mean of `mle`, and how many replies have no score if some have none."""
    scores, unscored = metrics.get("mle"), metrics.get("mle_unscored", 0)
    mean = "-" if scores is None else f"{scores['mean']:.2f}"
    return f"{mean} ({unscored} unscored)" if unscored else mean


def percent(fraction: float | None) -> str:
    """A fraction 0-1 as a percentage with one decimal; a dash where nothing was measured."""
    return "-" if fraction is None else f"{100 * fraction:.1f}"


def print_table(table: Table) -> None:
    """Print a table whole, even where the terminal is narrower or the output is a file."""
    console = Console()
    measured = Measurement.get(Console(width=1000), Console(width=1000).options, table)
    console.width = max(console.width, measured.maximum)
    console.print(table)
