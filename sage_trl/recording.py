"""Describes a training run for its `sage_run.json`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python
from transformers.utils import cached_file

from sage_trl.data.dataset import read_info
from sage_trl.data.fact_sets import FACTS_FILE, read_facts
from sage_trl.environment import versions
from sage_trl.models.checkpoints import hub_commit
from sage_trl.models.fusion_settings import FUSION_SETTINGS
from sage_trl.recipe import TINY_MODEL, Recipe
from sage_trl.records import JudgeScore, iterate_records
from sage_trl.run_record import (
    RUN_FILE,
    PartParameters,
    RunRecord,
    TrainingData,
    TrainingSettings,
    read_run_record,
    without_local_paths,
)
from sage_trl.trainer.entropy_dpo_config import EntropyDPOConfig

INPUT_SETTINGS = ("train_parts", "facts", "reference_in_prompt", "reference_dropout", "fusion_learning_rate")
PAIR_SETTINGS = ("pairs", "entropy", "drop_inverted", "drop_incomplete")
OBJECTIVE_SETTINGS = ("objective", "beta", "eta", "kl_coef")


def describe_run(recipe: Recipe, trainer: Any) -> RunRecord:
    """The record of a run that has just been trained.

    Args:
        recipe: what the run was asked to do.
        trainer: `SFETrainer` or `EntropyDPOTrainer` after `train()`.

    Raises:
        DataError: the dataset, its scores or facts, or the record of the stage before cannot be read.
    """
    model = recipe.run.model
    before = _earlier_record(model)
    earlier = (None, None) if before is None else (before.base_model, before.base_revision)
    is_from_hub = before is None and model != TINY_MODEL and not Path(model).is_dir()
    base_model, base_revision = (model, hub_commit(model, recipe.run.revision)) if is_from_hub else earlier
    return RunRecord(
        stage=recipe.run.stage,
        model=without_local_paths(model),
        base_model=base_model,
        base_revision=base_revision,
        chain=() if before is None else tuple(stage.model_copy(update={"chain": ()}) for stage in before.stages),
        recipe=without_local_paths(to_jsonable_python(recipe.values)),
        method=_method(recipe, trainer.model.config),
        training=_training_settings(trainer),
        data=_training_data(recipe, len(trainer.train_dataset)),
        parts=tuple(PartParameters(**dataclasses.asdict(size)) for size in trainer.part_sizes),
        versions=versions(),
    )


def _earlier_record(model: str) -> RunRecord | None:
    if model == TINY_MODEL:
        return None
    if Path(model).is_dir():
        return read_run_record(Path(model) / RUN_FILE)
    found = cached_file(
        model,
        RUN_FILE,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return None if found is None else read_run_record(Path(found))


def _method(recipe: Recipe, model_config: Any) -> dict[str, Any]:
    run, args = recipe.run, recipe.training
    fusion = {name: getattr(model_config, name) for name in FUSION_SETTINGS if hasattr(model_config, name)}
    method: dict[str, Any] = {name: getattr(args, name) for name in INPUT_SETTINGS} | {"turns": run.turns} | fusion
    if isinstance(args, EntropyDPOConfig):
        method |= {name: getattr(run, name) for name in PAIR_SETTINGS}
        method |= {name: getattr(args, name) for name in OBJECTIVE_SETTINGS}
    return dict(to_jsonable_python(method))


def _training_settings(trainer: Any) -> TrainingSettings:
    args = trainer.args
    weights = next(parameter.dtype for parameter in trainer.model.parameters() if parameter.requires_grad)
    autocast = "bf16" if args.bf16 else "fp16" if args.fp16 else None
    return TrainingSettings(
        rows_per_step=args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size,
        per_device_train_batch_size=args.per_device_train_batch_size,
        gradient_accumulation_steps=args.gradient_accumulation_steps,
        processes=args.world_size,
        steps=trainer.state.global_step,
        epochs=float(trainer.state.epoch or 0.0),
        learning_rate=args.learning_rate,
        lr_scheduler=str(to_jsonable_python(args.lr_scheduler_type)),
        warmup_steps=args.get_warmup_steps(trainer.state.max_steps),
        optimizer=str(to_jsonable_python(args.optim)),
        max_grad_norm=args.max_grad_norm,
        dtype=str(weights).removeprefix("torch.") + (f" under {autocast} autocast" if autocast else ""),
        seed=args.seed,
    )


def _training_data(recipe: Recipe, rows: int) -> TrainingData:
    run = recipe.run
    info = read_info(Path(run.dataset))
    is_used = run.datasets or info.sources
    return TrainingData(
        name=info.name,
        licence=info.licence,
        sources={name: licence for name, licence in info.sources.items() if name in is_used},
        sha256=info.sha256,
        split=run.split,
        rows=rows,
        judges=_judges(recipe),
        facts_by=_fact_writers(recipe),
    )


def _judges(recipe: Recipe) -> tuple[str, ...]:
    if not isinstance(recipe.training, EntropyDPOConfig):
        return ()
    path = Path(recipe.run.scores or Path(recipe.run.dataset) / "scores.jsonl")
    return tuple(sorted({score.judge for _, score in iterate_records(JudgeScore, path)}))


def _fact_writers(recipe: Recipe) -> tuple[str, ...]:
    if recipe.training.facts == "none":
        return ()
    path = Path(recipe.run.facts_file or Path(recipe.run.dataset) / FACTS_FILE)
    return tuple(sorted({facts.model for facts in read_facts(path).values()}))
