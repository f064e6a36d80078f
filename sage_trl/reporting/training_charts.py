"""Charts of training: losses, token accuracy, and the reward margins of min and max pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sage_trl.reporting.charts import COLOURS, SOFT, Canvas, Chart, Looks, short
from sage_trl.reporting.trainings import Curve, Training

MARGINS = {"min": "rewards/margins_min_pairs", "max": "rewards/margins_max_pairs"}


def training_charts(trainings: Sequence[Training], looks: Looks) -> list[Chart]:
    """The charts that the logs allow."""
    first = [training for training in trainings if not training.learns_preferences]
    second = [training for training in trainings if training.learns_preferences]
    wanted: list[tuple[str, Sequence[Training], str, str]] = [
        ("Loss, fine-tuning", first, "loss", "cross-entropy, nats per token"),
        ("Token accuracy, fine-tuning", first, "mean_token_accuracy", "share of tokens"),
        ("Loss, preferences", second, "loss", "loss"),
        ("Pairs ordered as the ranks", second, "rewards/accuracies", "share of pairs"),
    ]
    charts = [_lines(title, runs, name, label, looks) for title, runs, name, label in wanted if _logged(runs, name)]
    return [*charts, *(_margins(run) for run in second if any(run.curve(name)[0] for name in MARGINS.values()))]


def _logged(runs: Sequence[Training], name: str) -> bool:
    return any(run.curve(name)[0] for run in runs)


def _lines(title: str, runs: Sequence[Training], name: str, label: str, looks: Looks) -> Chart:
    with Canvas(title) as canvas:
        for run in runs:
            colour = looks[run.name].colour
            _plot(canvas.axes.plot, run.curve(name), color=colour, label=short(run.name))
            held_out = run.curve(f"eval_{name}")
            if held_out[0]:
                _plot(canvas.axes.plot, held_out, color=colour, linestyle="--", label=short(f"{run.name}, validation"))
        canvas.axes.set(xlabel="step", ylabel=label)
        canvas.legend()
    return Chart(title, canvas.svg)


def _margins(run: Training) -> Chart:
    title = f"Reward margins: {run.name}"
    with Canvas(title) as canvas:
        for number, (kind, name) in enumerate(MARGINS.items()):
            _plot(canvas.axes.plot, run.curve(name), color=COLOURS[number], label=f"{kind} pairs")
        canvas.axes.axhline(0, color=SOFT, linewidth=1)
        canvas.axes.set(xlabel="step", ylabel="reward of winner minus loser")
        canvas.legend()
    return Chart(
        title, canvas.svg, "min: the adjacent answers with the smallest entropy gap; max: best against worst (eq. 5)."
    )


def _plot(plot: Callable[..., object], curve: Curve, **style: object) -> None:
    steps, values = curve
    # A run that was logged once is a dot, not an invisible line.
    plot(steps, values, marker="o" if len(steps) == 1 else None, **style)
