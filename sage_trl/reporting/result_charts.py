"""Charts of what was measured: accuracy by level, and Acc-G as figure 5 of the paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import get_args

from sage_trl.evaluation.predictions import SETTINGS, Setting
from sage_trl.evaluation.report import LEVEL_NAMES
from sage_trl.reporting.charts import COLOURS, INK, SOFT, Canvas, Chart, Looks, short
from sage_trl.reporting.conditions import setting_name
from sage_trl.reporting.published import FIGURE_5_SAGE, SOURCE
from sage_trl.reporting.tables import Figures, MeasuredDataset


def accuracy_charts(measured: Sequence[MeasuredDataset], looks: Looks) -> list[Chart]:
    """One chart of accuracy by level for each dataset, split and setting."""
    charts = []
    for one in measured:
        for split in one.splits:
            for setting in get_args(Setting):
                found = {
                    model: figures for model, figures in one.figures(setting, split).items() if figures["questions"]
                }
                if found:
                    title = f"Accuracy by level, {setting_name(setting)}: {one.name}, {split}"
                    charts.append(_accuracy_chart(title, found, looks))
    return charts


def _accuracy_chart(title: str, found: Mapping[str, Figures], looks: Looks) -> Chart:
    places = [*LEVEL_NAMES, None]
    with Canvas(title, 3.0 + 0.2 * ((len(found) + 1) // 2)) as canvas:
        axes = canvas.axes
        for number, (model, figures) in enumerate(found.items()):
            known = [(place, *_accuracy(figures, level)) for place, level in enumerate(places)]
            offset = (number - (len(found) - 1) / 2) * min(0.14, 0.7 / len(found))
            points = [(place + offset, value, low, high) for place, value, low, high in known if value is not None]
            axes.errorbar(
                [x for x, *_ in points],
                [100 * value for _, value, *_ in points],
                [
                    [100 * (value - low) for _, value, low, _ in points],
                    [100 * (high - value) for _, value, _, high in points],
                ],
                fmt=looks[model].marker,
                markersize=5.5,
                elinewidth=1.4,
                color=looks[model].colour,
                label=short(model),
            )
        majority = max((figures.get("majority_accuracy") or 0.0 for figures in found.values()), default=0.0)
        axes.axhline(100 * majority, color=SOFT, linestyle="--", linewidth=1.2, label="constant answer")
        axes.axvline(len(places) - 1.5, color=SOFT, linewidth=0.6)
        axes.set_xticks(range(len(places)), [*LEVEL_NAMES.values(), "average"])
        axes.tick_params(axis="x", length=0, colors=INK)
        axes.grid(axis="x", visible=False)
        axes.set(ylabel="accuracy, %", ylim=(0, 104))
        canvas.legend()
    return Chart(
        title, canvas.svg, "Whiskers: 95% interval over physical units. Dashed: the better constant answer, on average."
    )


def _accuracy(figures: Figures, level: str | None) -> tuple[float | None, float, float]:
    """Value and interval; the value twice where there is no interval."""
    name = "accuracy" if level is None else f"accuracy_by_level/{level}"
    value = figures["accuracy"] if level is None else figures["accuracy_by_level"].get(level)
    if value is None:
        return None, 0.0, 0.0
    low, high = figures["intervals"].get(name) or (value, value)
    return value, min(low, value), max(high, value)


def group_charts(measured: Sequence[MeasuredDataset]) -> list[Chart]:
    """Figure 5: the share of groups with every question right, one chart for each dataset and split."""
    charts = []
    for one in measured:
        for split in one.splits:
            by_setting = {setting: one.figures(setting, split) for setting in SETTINGS}
            if any(figures.get("acc_g") is not None for found in by_setting.values() for figures in found.values()):
                charts.append(_group_chart(f"Acc-G: {one.name}, {split}", by_setting))
    return charts


def _group_chart(title: str, by_setting: Mapping[Setting, Mapping[str, Figures]]) -> Chart:
    models = list(dict.fromkeys(model for found in by_setting.values() for model in found))
    names = [*models, "SAGE, published"]
    with Canvas(title, 1.3 + 0.5 * len(names)) as canvas:
        axes = canvas.axes
        for number, (setting, found) in enumerate(by_setting.items()):
            offset = (number - 0.5) * 0.38
            colour = COLOURS[number]
            known = [
                (row, found[model]) for row, model in enumerate(models) if found.get(model, {}).get("acc_g") is not None
            ]
            if not known:
                continue
            values = [100 * figures["acc_g"] for _, figures in known]
            bounds = [figures["intervals"].get("acc_g") or [figures["acc_g"]] * 2 for _, figures in known]
            whiskers = [
                [max(0.0, value - 100 * low) for value, (low, _) in zip(values, bounds, strict=True)],
                [max(0.0, 100 * high - value) for value, (_, high) in zip(values, bounds, strict=True)],
            ]
            rows = [row + offset for row, _ in known]
            axes.barh(rows, values, 0.34, xerr=whiskers, color=colour, ecolor=INK, label=setting_name(setting))
            published = FIGURE_5_SAGE[number]
            axes.barh([len(models) + offset], [published], 0.34, facecolor="none", edgecolor=colour, linestyle="--")
            place = (published, len(models) + offset)
            axes.annotate(f"about {published:g}", place, (5, 0), textcoords="offset points", va="center", fontsize=9)
        axes.set_yticks(range(len(names)), [short(name) for name in names])
        axes.tick_params(axis="y", length=0, colors=INK)
        axes.grid(axis="y", visible=False)
        axes.invert_yaxis()
        axes.set(xlabel="groups with every question right, %", xlim=(0, None))
        canvas.legend()
    caption = (
        f"As figure 5 of the paper. Dashed: SAGE on MANTA as the paper tells it in words ({SOURCE}); "
        "its other bars are in its picture alone."
    )
    return Chart(title, canvas.svg, caption)
