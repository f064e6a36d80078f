"""Draws the statistics of a dataset on one sheet, as figure 4 of the paper does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sage_trl.data.statistics import Counts, DatasetStatistics, Lengths
from sage_trl.errors import RecipeError

NORMAL, ANOMALOUS, PLAIN, SECOND = "#4c9a83", "#c9614d", "#5b7fa6", "#d3a64a"
ANSWERS = {"yes": PLAIN, "no": SECOND, "choice": NORMAL, "open": "#a9a9a9"}
MOST_BARS = 20
FEWEST_BARS = 4
"""Room for so many, so that one bar does not fill a chart."""


def plot_statistics(statistics: DatasetStatistics, title: str, path: Path) -> None:
    """Write a PNG with six charts: test images per source and category, questions per level, verdicts, types, lengths.

    Raises:
        RecipeError: matplotlib is not installed.
    """
    try:
        # The object-oriented interface: no global state, and no window anywhere.
        from matplotlib.axes import Axes  # noqa: PLC0415
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ModuleNotFoundError:
        raise RecipeError('plots need matplotlib\n  remedy: pip install "sage-trl[plots]"') from None

    def bars(axes: Axes, heading: str, parts: Mapping[str, Mapping[str, int]], colours: tuple[str, ...]) -> None:
        """Horizontal stacked bars; `parts` maps each legend entry to its value per bar."""
        totals = {name: sum(part[name] for part in parts.values()) for name in next(iter(parts.values()))}
        shown = list(totals)[:MOST_BARS]
        left = [0] * len(shown)
        for (legend, part), colour in zip(parts.items(), colours, strict=False):
            axes.barh(shown, [part[name] for name in shown], left=left, color=colour, label=legend)
            left = [start + part[name] for start, name in zip(left, shown, strict=True)]
        for place, name in enumerate(shown):
            axes.text(totals[name], place, f" {totals[name]:,}", va="center", fontsize=8)
        hidden = len(totals) - len(shown)
        axes.set_title(heading + (f" (first {MOST_BARS} of {len(totals)})" if hidden else ""), fontsize=10, loc="left")
        # Not by margins, which end at a bar without width. Above the bars, which may reach everywhere, is the legend.
        axes.set_xlim(0, 1.15 * max(1, *totals.values()))
        axes.set_ylim(max(len(shown), FEWEST_BARS) - 0.5, -0.5)
        if len(parts) > 1:
            axes.legend(
                loc="lower right",
                bbox_to_anchor=(1.0, 1.0),
                ncols=len(parts),
                fontsize=8,
                frameon=False,
                borderaxespad=0.0,
                handlelength=1.0,
                columnspacing=0.8,
            )

    figure = Figure(figsize=(13, 8), layout="constrained")
    figure.suptitle(f"{title}: {statistics.total.questions:,} questions on {statistics.total.images:,} test images")
    sheet = figure.subplots(2, 3).flatten()
    for axes, name in zip(sheet, ("source", "category"), strict=False):
        bars(axes, f"images per {name}", _by_kind(statistics.by[name]), (NORMAL, ANOMALOUS))
    levels = {name.replace("_", " "): counts for name, counts in statistics.by["level"].items()}
    bars(sheet[2], "questions per level", {"": {name: counts.questions for name, counts in levels.items()}}, (PLAIN,))
    answers = {answer: {name: getattr(counts, answer) for name, counts in levels.items()} for answer in ANSWERS}
    given = {answer: counts for answer, counts in answers.items() if any(counts.values())}
    bars(sheet[3], "true answers per level", given, tuple(ANSWERS[answer] for answer in given))
    bars(sheet[4], "defects per type", {"": statistics.defect_types or {"none": 0}}, (ANOMALOUS,))
    for name, colour in {"questions": PLAIN, "all answers": SECOND}.items():
        words, counts = _steps(statistics.lengths[name])
        sheet[5].bar(words, counts, width=1.0, color=colour, alpha=0.6, label=name)
    sheet[5].set_title("words per text", fontsize=10, loc="left")
    sheet[5].legend(fontsize=8, frameon=False)
    for axes in sheet:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _by_kind(counts: Mapping[str, Counts]) -> dict[str, dict[str, int]]:
    return {
        "normal": {name: count.normal_images for name, count in counts.items()},
        "anomalous": {name: count.anomalous_images for name, count in counts.items()},
    }


def _steps(lengths: Lengths) -> tuple[list[int], list[int]]:
    words = sorted(lengths.histogram)
    return words, [lengths.histogram[number] for number in words]
