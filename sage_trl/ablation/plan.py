"""Plan files: which trainings there are, what starts from what, and which of them the table compares."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, StringConstraints

from sage_trl.errors import RecipeError
from sage_trl.evaluation.predictions import Control, Setting
from sage_trl.recipe import read_yaml, unknown_key
from sage_trl.records import Record, Text, parse_record

# Names become those of directories.
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_]*$")]
Grid = dict[str, Annotated[list[Any], Field(min_length=1)]]


class StagePlan(Record):
    """One training, or one for each combination of what its grid and its tuning vary.

    Attributes:
        recipe: file name in the plan's directory of recipes.
        start: (key `from`) the stage whose model it trains; None for the model that the recipe names.
        plain: leave the fusion out of the trained model, so that every stage from it gets a new one.
        override: recipe keys that differ. `num_facts` beside them trains and evaluates, here and in the stages from it,
            on the first so many facts of each image.
        grid: key -> values; every combination is an arm of its own.
        tune: key -> values; the combination with the best validation accuracy, at the first seed, counts.
    """

    recipe: Text
    start: Name | None = Field(default=None, alias="from")
    plain: bool = False
    override: dict[str, Any] = Field(default={})
    grid: Grid = Field(default={})
    tune: Grid = Field(default={})


class ArmPlan(Record):
    """One row of the table, or one for each combination of its stage's grid: a trained stage and how it is asked.

    `control` is as in evaluation: `hard_facts` writes the facts into the prompt, `no_facts` hides them.
    """

    stage: Name
    title: Text | None = None
    control: Control | None = None


class Plan(Record):
    """The content of a plan file.

    Attributes:
        title: of the table.
        recipes: directory of the stages' recipes, from the plan's own directory.
        stages: by name, in any order.
        arms: by name, in the order of the table.
        settings, splits: what every arm is evaluated on.
    """

    title: Text
    recipes: Text
    stages: Annotated[dict[Name, StagePlan], Field(min_length=1)]
    arms: Annotated[dict[Name, ArmPlan], Field(min_length=1)]
    settings: Annotated[tuple[Setting, ...], Field(strict=False, min_length=1)]
    splits: Annotated[tuple[Text, ...], Field(strict=False, min_length=1)] = ("test",)


def read_plan(path: Path) -> Plan:
    """Read and check a plan.

    Raises:
        RecipeError: unknown keys, stages that are not there, that start from each other in a circle or that no arm
            uses; all of them in one message.
        DataError: a key with a wrong value.
    """
    values = read_yaml(path, "plan")
    _refuse(list(_unknown_keys(values, str(path))))
    plan = parse_record(Plan, values, path)
    _refuse([f"{path}: {fault}" for fault in _faults(plan)])
    return plan


def lineage(plan: Plan, stage: str) -> list[str]:
    """The stage and those it comes from, the first first; cut off where it would begin again."""
    names: list[str] = []
    name: str | None = stage
    while name in plan.stages and name not in names:
        names.append(name)
        name = plan.stages[name].start
    return names[::-1]


def _faults(plan: Plan) -> Iterator[str]:
    known = ", ".join(plan.stages)
    for name, stage in plan.stages.items():
        if stage.start is None:
            continue
        if stage.start not in plan.stages:
            yield f"stage {name!r} starts from {stage.start!r}, which is no stage\n  remedy: use one of {known}"
        elif plan.stages[lineage(plan, name)[0]].start in plan.stages:
            yield f"stage {name!r} starts from itself, by way of {stage.start!r}\n  remedy: let one stage start anew"
        elif plan.stages[stage.start].grid or plan.stages[stage.start].tune:
            yield (
                f"stage {name!r} starts from {stage.start!r}, of which there are several (grid, tune)\n"
                "  remedy: start from a stage without grid and tune"
            )
    for name, arm in plan.arms.items():
        if arm.stage not in plan.stages:
            yield f"arm {name!r} has the stage {arm.stage!r}, which is none\n  remedy: use one of {known}"
    used = {name for arm in plan.arms.values() for name in lineage(plan, arm.stage)}
    for name, stage in plan.stages.items():
        if name not in used:
            yield f"stage {name!r} is of no use to any arm\n  remedy: give it an arm, or leave it out"
        for key in sorted({*stage.grid} & {*stage.tune} | ({*stage.grid} | {*stage.tune}) & {*stage.override}):
            yield f"stage {name!r} says {key!r} twice\n  remedy: leave it in one of override, grid and tune"


def _unknown_keys(values: Mapping[str, Any], source: str) -> Iterator[str]:
    yield from _unknown_in(values, Plan, source)
    for group, kind in (("stages", StagePlan), ("arms", ArmPlan)):
        entries = values.get(group)
        for name, entry in entries.items() if isinstance(entries, dict) else ():
            if isinstance(entry, dict):
                yield from _unknown_in(entry, kind, f"{source}: {group}.{name}")


def _unknown_in(values: Mapping[str, Any], kind: type[BaseModel], source: str) -> Iterator[str]:
    known = [field.alias or name for name, field in kind.model_fields.items()]
    return (unknown_key(str(key), known, source) for key in values if key not in known)


def _refuse(faults: list[str]) -> None:
    if faults:
        raise RecipeError("\n".join(faults))
