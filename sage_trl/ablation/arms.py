"""From a plan to trainings and rows of the table, with every grid written out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from sage_trl.ablation.plan import Grid, Plan, lineage
from sage_trl.errors import RecipeError
from sage_trl.evaluation.inference_settings import read_inference_settings
from sage_trl.evaluation.predictions import Control
from sage_trl.models.prompt import FactUse
from sage_trl.planning.memory import OVERRIDES
from sage_trl.recipe import load_recipe, parse_overrides
from sage_trl.trainer.entropy_dpo_config import EntropyDPOConfig

NUM_FACTS = "num_facts"


@dataclass(frozen=True)
class Training:
    """One training of a stage.

    Attributes:
        name: the stage's, with what grid and tuning vary; that of its directory.
        recipe: the recipe's file.
        values: recipe keys that differ from it.
        num_facts: how many facts of each image it sees; None for all.
        start: the training that it starts from.
        plain: see `StagePlan`.
        model: a model that takes the place of this training; None to train.
        tuned: the keys that tuning varies, with their values.
        facts: what becomes of facts in its model; None where that is not known before the model is loaded.
        is_preference: whether it learns from scored answers.
    """

    name: str
    recipe: Path
    values: Mapping[str, Any]
    num_facts: int | None
    start: Training | None
    plain: bool
    model: str | None
    tuned: Mapping[str, Any]
    facts: FactUse | None
    is_preference: bool

    @property
    def line(self) -> list[Training]:
        """The trainings it comes from, the first first, and itself; none where a given model takes their place."""
        before = [] if self.start is None or self.model is not None else self.start.line
        return [*before, self]


@dataclass(frozen=True, eq=False)
class Arm:
    """A row of the table. Of several `candidates` the one with the best validation accuracy counts.

    `cell` holds the keys that the grid varies, with their values.
    """

    name: str
    title: str
    cell: Mapping[str, Any]
    control: Control | None
    candidates: tuple[Training, ...]


@dataclass(frozen=True)
class Changes:
    """What the command line changes of a plan.

    Attributes:
        recipes: the directory of the recipes, in place of the plan's.
        trained: stage -> directory or hub id of a model that takes its place.
        values: (stage or None for all, recipe key) -> value.
    """

    recipes: Path | None = None
    trained: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[tuple[str | None, str], Any] = field(default_factory=dict)


def parse_changes(recipes: Path | None, trained: Sequence[str], values: Sequence[str]) -> Changes:
    """Read the words of the command line.

    Args:
        recipes: as in `Changes`.
        trained: `STAGE=MODEL`.
        values: `KEY=VALUE` or `STAGE.KEY=VALUE`; a value is read as YAML.

    Raises:
        RecipeError: a word of another form.
    """
    models: dict[str, str] = {}
    for word in trained:
        stage, equals, model = word.partition("=")
        if not (stage and equals and model):
            raise RecipeError(f"--trained: {word!r} is not STAGE=MODEL\n  remedy: write base=runs/base")
        models[stage] = model
    settings: dict[tuple[str | None, str], Any] = {}
    for word in values:
        name, equals, _ = word.partition("=")
        if not equals:
            raise RecipeError(f"--set: {word!r} is not KEY=VALUE\n  remedy: write max_steps=200 or sfe.max_steps=200")
        stage, dot, key = name.rpartition(".")
        [(key, value)] = parse_overrides([f"--{key}={word.partition('=')[2]}"]).items()
        settings[stage if dot else None, key] = value
    return Changes(recipes, models, settings)


def build_arms(plan: Plan, directory: Path, changes: Changes) -> list[Arm]:
    """The rows of the table.

    Args:
        plan: the plan.
        directory: the plan's own.
        changes: what the command line says otherwise.

    Raises:
        RecipeError: a missing recipe, a key or value that it cannot have, or changes of a stage that is not there.
    """
    recipes = Path(os.path.normpath(changes.recipes or directory / plan.recipes))
    for stage in (*changes.trained, *(stage for stage, _ in changes.values if stage is not None)):
        if stage not in plan.stages:
            raise RecipeError(f"stage {stage!r} is not in the plan\n  remedy: use one of {', '.join(plan.stages)}")
    known: dict[str, Training] = {}
    arms: list[Arm] = []
    for name, arm in plan.arms.items():
        for before in lineage(plan, arm.stage)[:-1]:
            if before not in known:
                known[before] = _training(plan, before, {}, {}, recipes, changes, known)
        planned = plan.stages[arm.stage]
        for cell in _combinations(planned.grid):
            candidates = []
            for tuned in _combinations(planned.tune):
                training = _training(plan, arm.stage, cell, tuned, recipes, changes, known)
                if arm.control == "no_facts" and training.facts == "none":
                    raise RecipeError(
                        f"arm {name!r}: control is 'no_facts', but stage {arm.stage!r} is trained without facts\n"
                        "  remedy: leave control out, which gives the same, or name a stage that is trained with facts"
                    )
                candidates.append(known.setdefault(training.name, training))
            arms.append(
                Arm(
                    name=_name(name, cell),
                    title=", ".join([arm.title or name, *(f"{key} {_word(value)}" for key, value in cell.items())]),
                    cell=cell,
                    control=arm.control,
                    candidates=tuple(candidates),
                )
            )
    return arms


def trainings_of(candidates: Iterable[Training]) -> list[Training]:
    """These trainings and all they come from, each once and after what it starts from."""
    return list({training.name: training for last in candidates for training in last.line}.values())


def recipe_words(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Recipe keys and values as words of the command line."""
    return tuple(word for key, value in values.items() for word in (f"--{key}", _word(value)))


def _training(
    plan: Plan,
    stage: str,
    cell: Mapping[str, Any],
    tuned: Mapping[str, Any],
    recipes: Path,
    changes: Changes,
    known: Mapping[str, Training],
) -> Training:
    planned = plan.stages[stage]
    varied = {**cell, **tuned}
    changed = {key: value for (where, key), value in changes.values.items() if where is None}
    changed |= {key: value for (where, key), value in changes.values.items() if where == stage}
    for key in {*changed} & {*varied}:
        raise RecipeError(
            f"--set: {key} is what the plan varies of stage {stage!r}\n  remedy: leave it out, or mend the plan"
        )
    values = {**planned.override, **changed, **varied}
    start = None if planned.start is None else known[planned.start]
    num_facts = values.pop(NUM_FACTS, None if start is None else start.num_facts)
    if num_facts is not None and not (type(num_facts) is int and num_facts > 0):
        raise RecipeError(
            f"stage {stage!r}: num_facts is {num_facts!r}\n  remedy: give a number of at least 1, or null"
        )
    path = recipes / planned.recipe
    model = changes.trained.get(stage)
    is_preference = False
    facts: FactUse | None = None
    if model is None:
        recipe = load_recipe(path, [*recipe_words(values), *OVERRIDES])
        is_preference = isinstance(recipe.training, EntropyDPOConfig)
        # Without its fusion a model takes no facts.
        facts = "none" if planned.plain else recipe.training.facts
    elif Path(model).is_dir():
        facts = read_inference_settings(model).facts
    name = _name(stage, varied)
    return Training(name, path, values, num_facts, start, planned.plain, model, dict(tuned), facts, is_preference)


def _combinations(grid: Grid) -> Iterator[dict[str, Any]]:
    return (dict(zip(grid, values, strict=True)) for values in product(*grid.values()))


def _name(stem: str, varied: Mapping[str, Any]) -> str:
    return "-".join([stem, *(f"{key}={_word(value)}".replace("/", "_") for key, value in varied.items())])


def _word(value: Any) -> str:
    """A value as it is typed on the command line, where it is read as YAML."""
    if isinstance(value, str) and yaml.safe_load(value) == value:
        return value
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10**6)
    return text.removesuffix("\n").removesuffix("\n...")
