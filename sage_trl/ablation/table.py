"""The table of an ablation, `table.json` and `table.md`: means over seeds, each seed, and intervals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Annotated, Any, Literal

from pydantic import Field

from sage_trl.ablation.arms import Arm
from sage_trl.ablation.choosing import Choice, read_figures
from sage_trl.ablation.commands import Commands
from sage_trl.ablation.plan import Plan
from sage_trl.evaluation.predictions import Control, Setting
from sage_trl.evaluation.report import percent
from sage_trl.evaluation.seeds import SeedFigure, over_seeds
from sage_trl.records import Record
from sage_trl.storage import atomic_writer, write_json

TABLE_FILE = "table.json"
MARKDOWN_FILE = "table.md"
FIGURES = ("accuracy", "balanced_accuracy", "acc_g", "f1", "sbert", "mle_rule", "unreadable")
INTERVALS = {"mle_rule": "mle_rule/mean"}
"""What `metrics.json` calls the intervals of figures, where it is not the figure's own name."""


class Candidate(Record):
    """What tuning tried: recipe keys with their values, and the accuracy on the validation split, one-shot."""

    values: dict[str, Any]
    accuracy: float


class TableRow(Record):
    """One arm in one setting on one split.

    Attributes:
        arm, title, control: as in the plan; `title` names what the grid varies as well.
        grid: the keys that the grid varies, with their values.
        chosen: the keys that tuning chose, with their values.
        candidates: all that tuning tried; empty where nothing was tuned.
        questions, groups, majority_accuracy: as in `metrics.json`.
        figures: fractions 0-1, `mle_rule` the mean of 1-5, `unreadable` a number of replies.
    """

    arm: str
    title: str
    setting: Setting
    split: str
    control: Control | None
    grid: dict[str, Any]
    chosen: dict[str, Any]
    candidates: Annotated[tuple[Candidate, ...], Field(strict=False)]
    questions: int
    groups: int
    majority_accuracy: float | None
    figures: dict[str, SeedFigure]


class Table(Record):
    """The content of `table.json`."""

    version: Literal[1] = 1
    title: str
    seeds: Annotated[tuple[int, ...], Field(strict=False)]
    rows: Annotated[tuple[TableRow, ...], Field(strict=False)]


def write_table(plan: Plan, choices: Mapping[Arm, Choice], commands: Commands, seeds: Sequence[int]) -> Table:
    """Write both files from the results of these seeds.

    Raises:
        DataError: a result is missing.
    """
    rows = [
        _row(arm, choice, setting, split, commands, seeds)
        for split, setting, (arm, choice) in product(plan.splits, plan.settings, choices.items())
    ]
    table = Table(title=plan.title, seeds=tuple(seeds), rows=tuple(rows))
    write_json(commands.output / TABLE_FILE, table.model_dump(mode="json"))
    with atomic_writer(commands.output / MARKDOWN_FILE) as stream:
        stream.writelines(f"{line}\n" for line in markdown_lines(table))
    return table


def _row(arm: Arm, choice: Choice, setting: Setting, split: str, commands: Commands, seeds: Sequence[int]) -> TableRow:
    by_seed = [
        read_figures(commands.evaluation(arm, seed), commands.model(choice.training, seed), setting, split, arm.control)
        for seed in seeds
    ]
    tried = zip(arm.candidates, choice.accuracies or (), strict=False)
    return TableRow(
        arm=arm.name,
        title=arm.title,
        setting=setting,
        split=split,
        control=arm.control,
        grid=dict(arm.cell),
        chosen=dict(choice.training.tuned),
        candidates=tuple(Candidate(values=dict(one.tuned), accuracy=accuracy) for one, accuracy in tried),
        questions=by_seed[0]["questions"],
        groups=by_seed[0]["groups"],
        majority_accuracy=by_seed[0]["majority_accuracy"],
        figures={
            name: over_seeds(
                [_value(figures, name) for figures in by_seed],
                [figures["intervals"].get(INTERVALS.get(name, name)) for figures in by_seed],
            )
            for name in FIGURES
        },
    )


def _value(figures: Mapping[str, Any], name: str) -> float | None:
    value = figures[name]
    if isinstance(value, dict):
        return float(value["mean"])
    return None if value is None else float(value)


def markdown_lines(table: Table) -> Iterator[str]:
    """The table for people: a section for each split and setting."""
    several = len(table.seeds) > 1
    yield f"# {table.title}"
    yield ""
    yield f"Seeds: {', '.join(map(str, table.seeds))}. {_explanation(several)}"
    sections = dict.fromkeys((row.split, row.setting) for row in table.rows)
    for split, setting in sections:
        rows = [row for row in table.rows if (row.split, row.setting) == (split, setting)]
        counted = f"{rows[0].questions} questions in {rows[0].groups} groups"
        yield ""
        yield f"## {setting.replace('_', '-')}, split `{split}`"
        yield ""
        yield f"{counted}; the better constant answer gets {percent(rows[0].majority_accuracy)}%."
        yield ""
        header = ["arm", "accuracy, %", *(["each seed"] if several else []), "Acc-G, %", "SBERT", "`mle_rule`"]
        header += ["unreadable", "chosen on validation"]
        yield f"| {' | '.join(header)} |"
        yield f"|{'---|' * len(header)}"
        for row in rows:
            yield f"| {' | '.join(_cells(row, several))} |"


def _explanation(several: bool) -> str:
    if not several:
        return "In brackets the 95% interval over physical units; one seed says nothing about the next."
    return (
        "Means over the seeds; in brackets from the lowest to the highest bound of the seeds' 95% intervals "
        "over physical units."
    )


def _cells(row: TableRow, several: bool) -> list[str]:
    figures = row.figures
    seeds = [" / ".join(percent(value) for value in figures["accuracy"].seeds)] if several else []
    score, sbert, unreadable = (figures[name].mean for name in ("mle_rule", "sbert", "unreadable"))
    return [
        row.title.replace("|", r"\|"),
        _with_interval(figures["accuracy"]),
        *seeds,
        _with_interval(figures["acc_g"]),
        "-" if sbert is None else f"{sbert:.3f}",
        "-" if score is None else f"{score:.2f}",
        "-" if unreadable is None else f"{unreadable:g}" if unreadable.is_integer() else f"{unreadable:.1f}",
        ", ".join(f"{key} {value}" for key, value in row.chosen.items()) or "-",
    ]


def _with_interval(figure: SeedFigure) -> str:
    if figure.interval is None:
        return percent(figure.mean)
    low, high = figure.interval
    return f"{percent(figure.mean)} ({100 * low:.0f}-{100 * high:.0f})"
