"""Which checkpoint a run goes on from, and whether it is the same run still."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

from sage_trl.data.dataset import ROWS_FILE
from sage_trl.environment import git_state, versions
from sage_trl.errors import RecipeError
from sage_trl.model_building import facts_path
from sage_trl.recipe import CONFIGS, STAGE_DEFAULTS, TINY_MODEL, Recipe, RunArguments
from sage_trl.records import Record, parse_record
from sage_trl.run_record import without_local_paths
from sage_trl.storage import file_sha256
from sage_trl.trainer.agreement import from_main_process
from sage_trl.trainer.checkpoint_files import MANIFEST_FILE, checkpoints, newest_whole, read_manifest
from sage_trl.trainer.entropy_dpo_config import EntropyDPOConfig

logger = logging.getLogger(__name__)
# Whole, sharded, of an adapter; and the folders of DeepSpeed and FSDP.
WEIGHT_FILES = ("*.safetensors", "*.safetensors.index.json", "global_step*", "pytorch_model_fsdp_*")
# Recipe keys that may differ: where things lie (what they hold is compared), how often and where to it is told, and
# how a step's rows are shared out, whose number is compared.
_FREE_KEYS = frozenset(
    {
        *("resume", "resume_anyway", "output_dir", "dataset", "facts_file", "scores", "reference_cache"),
        *("disable_tqdm", "report_to", "run_name", "project", "push_to_hub", "validation_split", "ddp_timeout"),
        *("per_device_train_batch_size", "gradient_accumulation_steps", "per_device_eval_batch_size"),
        *("dataloader_num_workers", "dataloader_pin_memory", "dataloader_prefetch_factor"),
    }
)
_FREE_PREFIXES = ("logging_", "log_", "save_", "eval_", "hub_", "trackio_")


class RunIdentity(Record):
    """What decides how a run goes on.

    Attributes:
        recipe: the keys that the user set; a path of this machine is reduced to its name.
        versions, git: as of `environment`.
        data: SHA-256 of the files with rows, facts and scores.
        world_size: processes.
        rows_per_step: rows of all processes; None with `max_tokens_per_batch`.
        seed: of everything.
    """

    stage: str
    recipe: dict[str, Any]
    versions: dict[str, str]
    git: dict[str, str] | None
    data: dict[str, str]
    world_size: int
    rows_per_step: int | None
    seed: int


def identify(recipe: Recipe) -> RunIdentity:
    """The identity of the run that a recipe starts here and now.

    Raises:
        DataError: rows, facts or scores are not there.
    """
    run, args = recipe.run, recipe.training
    files = {"rows": Path(run.dataset) / ROWS_FILE}
    if args.facts != "none" or run.model == TINY_MODEL:
        files["facts"] = facts_path(run)
    if isinstance(args, EntropyDPOConfig):
        files["scores"] = Path(run.scores or Path(run.dataset) / "scores.jsonl")
    rows = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    return RunIdentity(
        stage=run.stage,
        recipe=without_local_paths(to_jsonable_python(recipe.values)),
        versions=versions(),
        git=git_state(),
        data={name: file_sha256(path) for name, path in files.items() if path.is_file()},
        world_size=args.world_size,
        rows_per_step=None if args.max_tokens_per_batch else rows,
        seed=args.seed,
    )


def find_checkpoint(output_dir: Path, *, resume: bool) -> Path | None:
    """The newest whole checkpoint to go on from, or None to start anew. One that is not whole is told, and left.

    Raises:
        RecipeError: the directory holds a run and `resume` was not asked for; or checkpoints and none of them whole;
            or a model and no checkpoint; or the checkpoint holds weights alone.
    """
    return from_main_process(lambda: _find_checkpoint(output_dir, resume=resume))


def _find_checkpoint(output_dir: Path, *, resume: bool) -> Path | None:
    holds_model = any(any(output_dir.glob(pattern)) for pattern in WEIGHT_FILES)
    if not resume:
        if holds_model or checkpoints(output_dir):
            raise RecipeError(
                f"output_dir {output_dir} already holds a run\n"
                "  remedy: pass --resume to go on with it, choose another output_dir, or delete it"
            )
        return None
    whole, broken = newest_whole(output_dir)
    for path, fault in broken.items():
        logger.warning("%s is not whole and is left as it is: %s", path, fault)
    if whole is not None:
        if read_manifest(whole).weights_only:
            raise RecipeError(
                f"{whole} holds weights alone (save_only_model)\n"
                "  remedy: set model to it and choose another output_dir, to start anew from these weights"
            )
        return whole
    if broken or holds_model:
        held = f"no whole checkpoint ({'; '.join(f'{path.name}: {fault}' for path, fault in broken.items())})"
        raise RecipeError(
            f"output_dir {output_dir} holds {held if broken else 'a model and no checkpoint'} to go on from\n"
            "  remedy: choose another output_dir, or delete it to start anew"
        )
    return None


def refuse_another_run(checkpoint: Path, now: RunIdentity, *, anyway: bool) -> list[str]:
    """Compare the run that made a checkpoint with the one that is to go on.

    Another number of processes is no difference as long as a step has as many rows: it makes the same step.

    Returns:
        What differs and is allowed to.

    Raises:
        RecipeError: names every difference, if not `anyway`.
        DataError: the manifest is damaged.
    """
    manifest = read_manifest(checkpoint)
    if not manifest.run:
        return [f"{checkpoint.name} does not tell which recipe made it"]
    before = parse_record(RunIdentity, manifest.run, checkpoint / MANIFEST_FILE)
    told = _differences(before, now)
    if told and not anyway:
        listed = "\n".join(f"    {line}" for line in told)
        remedy = "undo what differs, or pass --resume_anyway to go on with it"
        raise RecipeError(f"{checkpoint}: was made by a run that differs in\n{listed}\n  remedy: {remedy}")
    if before.world_size != now.world_size:
        told.append(f"processes: {before.world_size}, now {now.world_size}")
    return told


def _differences(before: RunIdentity, now: RunIdentity) -> list[str]:
    told = []
    for key in sorted(before.recipe.keys() | now.recipe.keys()):
        if key in _FREE_KEYS or key.startswith(_FREE_PREFIXES):
            continue
        old, new = _value(before, key), _value(now, key)
        if old != new:
            told.append(f"recipe key {key}: {old!r}, now {new!r}")
    told += _mapping("version of", before.versions, now.versions)
    told += _mapping("git", before.git or {}, now.git or {})
    told += _mapping("data", before.data, now.data)
    if before.rows_per_step != now.rows_per_step:
        told.append(f"rows of a step over all processes: {before.rows_per_step}, now {now.rows_per_step}")
    if now.rows_per_step is None and before.world_size != now.world_size:
        told.append(f"processes, each with max_tokens_per_batch: {before.world_size}, now {now.world_size}")
    return told


def _mapping(name: str, before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    return [f"{name} {key}: {before.get(key)}, now {now.get(key)}" for key in keys]


def _value(identity: RunIdentity, key: str) -> Any:
    """The value that a run has for a recipe key, set or by default."""
    if key in identity.recipe:
        return identity.recipe[key]
    by_stage: dict[str, Any] = STAGE_DEFAULTS.get(identity.stage, {})  # type: ignore[call-overload]
    if key in by_stage:
        return by_stage[key]
    config: type[Any] = CONFIGS[identity.stage]  # type: ignore[index]
    for item in (*dataclasses.fields(RunArguments), *dataclasses.fields(config)):
        if item.name == key:
            made = item.default_factory() if item.default_factory is not dataclasses.MISSING else item.default
            return None if made is dataclasses.MISSING else to_jsonable_python(made)
    return None
