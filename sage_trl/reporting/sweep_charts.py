"""Charts of a sweep as figure 7 of the paper: accuracy and score over what a grid varies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sage_trl.reporting.ablations import Ablation, ArmRow
from sage_trl.reporting.charts import COLOURS, MARKERS, Canvas, Chart
from sage_trl.reporting.conditions import setting_name

_SHOWN = (("Accuracy", ("accuracy",), 100.0, "accuracy, %"), ("Score", ("mle", "mle_rule"), 1.0, "MLE score"))


def sweep_charts(ablations: Sequence[Ablation]) -> list[Chart]:
    """Two charts for each sweep, setting and split: one line for each value of the second key, over the first."""
    charts = []
    for ablation in ablations:
        swept = [row for row in ablation.rows if row.grid]
        for split, setting, keys in dict.fromkeys((row.split, row.setting, tuple(row.grid)) for row in swept):
            rows = [row for row in swept if (row.split, row.setting, tuple(row.grid)) == (split, setting, keys)]
            for what, names, factor, label in _SHOWN:
                points = [row for row in rows if row.mean(*names) is not None]
                if len(points) > 1:
                    title = f"{what}, {setting_name(setting)}: {ablation.title}, {split}"
                    charts.append(_chart(title, points, keys, names, factor, label, len(ablation.seeds)))
    return charts


def _chart(
    title: str,
    rows: Sequence[ArmRow],
    keys: Sequence[str],
    names: Sequence[str],
    factor: float,
    label: str,
    seeds: int,
) -> Chart:
    first, others = keys[0], keys[1:]
    values: list[Any] = []  # of any kind that YAML has, lists and mappings as well
    lines: list[list[Any]] = []
    for row in rows:
        value, line = row.grid[first], [row.grid[key] for key in others]
        values += [] if value in values else [value]
        lines += [] if line in lines else [line]
    with Canvas(title) as canvas:
        for number, line in enumerate(lines):
            own = [row for row in rows if [row.grid[key] for key in others] == line]
            means = [row.mean(*names) for row in own]
            canvas.axes.plot(
                [values.index(row.grid[first]) for row in own],
                [factor * mean for mean in means if mean is not None],
                marker=MARKERS[number % len(MARKERS)],
                color=COLOURS[number % len(COLOURS)],
                label=", ".join(f"{_words(key)} {value}" for key, value in zip(others, line, strict=True)) or label,
            )
        canvas.axes.set_xticks(range(len(values)), [str(value) for value in values])
        canvas.axes.set(xlabel=_words(first), ylabel=label)
        canvas.legend()
    return Chart(title, canvas.svg, f"As figure 7 of the paper; means over {seeds} seed{'s' if seeds > 1 else ''}.")


def _words(key: str) -> str:
    return key.removeprefix("num_").replace("_", " ")
