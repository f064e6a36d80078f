"""One training run from a recipe: seed, data, model, trainer, train, save."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from datasets import Dataset
from rich.console import Console
from rich.table import Table
from transformers import set_seed

from sage_trl.data.rows import PairCounts, load_ad_pl
from sage_trl.errors import RecipeError, StoppedError
from sage_trl.model_building import Models, build_models, facts_path
from sage_trl.models.parts import PartSize
from sage_trl.recipe import Recipe
from sage_trl.recording import describe_run
from sage_trl.run_record import write_run_record
from sage_trl.trainer.entropy_dpo_config import EntropyDPOConfig
from sage_trl.trainer.entropy_dpo_trainer import EntropyDPOTrainer
from sage_trl.trainer.sfe_trainer import SFETrainer
from sage_trl.trainer.stop_on_signal import StopOnSignal

logger = logging.getLogger(__name__)
STATE_FILE = "trainer_state.json"
# Whole, sharded, of an adapter; and the folders of DeepSpeed and FSDP.
WEIGHT_FILES = ("*.safetensors", "*.safetensors.index.json", "global_step*", "pytorch_model_fsdp_*")


def run_training(recipe: Recipe, console: Console) -> Path:
    """Train as the recipe says and save model and processor.

    Returns:
        The directory of the trained model.

    Raises:
        SageError: recipe, data or model cannot be used, and nothing was trained; or a signal stopped the run, or it
            diverged, and its checkpoints are there.
    """
    run, args = recipe.run, recipe.training
    checkpoint = find_checkpoint(Path(args.output_dir), resume=run.resume)
    set_seed(args.seed)
    counts = PairCounts()
    train_rows = load_rows(recipe, run.split, counts)
    validation_rows = None if run.validation_split is None else load_rows(recipe, run.validation_split, PairCounts())
    warn_of_long_warmup(args, len(train_rows))
    trainer = build_trainer(args, build_models(recipe), train_rows, validation_rows)
    balance = trainer.balance()
    if trainer.is_world_process_zero():
        console.print(part_table(trainer.part_sizes))
        console.print(f"attention: {trainer.model.config._attn_implementation}")
        if counts.questions:
            console.print(counts.summary(), highlight=False)
        if balance is not None:
            console.print(str(balance), highlight=False, soft_wrap=True)
        console.print(f"{len(train_rows)} rows; " + (f"resuming {checkpoint.name}" if checkpoint else "starting anew"))
    stop = StopOnSignal()
    trainer.add_callback(stop)
    with stop.listening():
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    if stop.received is not None:
        step = f"stopped by {stop.received.name} after step {trainer.state.global_step}, which is saved"
        raise StoppedError(f"{step}\n  remedy: the same command with --resume goes on from there", stop.received)
    trainer.save_state()
    if trainer.is_world_process_zero():
        write_run_record(Path(args.output_dir), describe_run(recipe, trainer))
    trainer.save_model()  # comes last, because with push_to_hub it publishes what is there
    if trainer.is_world_process_zero():
        console.print(f"saved {args.output_dir}")
    return Path(args.output_dir)


def find_checkpoint(output_dir: Path, *, resume: bool) -> Path | None:
    """The newest whole checkpoint to go on from, or None to start anew.

    Raises:
        RecipeError: the directory holds a run and `resume` was not asked for, or a model and no checkpoint.
    """
    holds_model = _holds_weights(output_dir)
    numbered = {int(path.name.rpartition("-")[2]): path for path in output_dir.glob("checkpoint-*[0-9]")}
    found = [path for _, path in sorted(numbered.items(), reverse=True)]
    if not resume:
        if found or holds_model:
            raise RecipeError(
                f"output_dir {output_dir} already holds a run\n"
                "  remedy: pass --resume to go on with it, choose another output_dir, or delete it"
            )
        return None
    # The state is written last: a checkpoint without it was cut short by a kill.
    whole = [path for path in found if (path / STATE_FILE).is_file()]
    if not whole:
        if holds_model:
            raise RecipeError(
                f"output_dir {output_dir} holds a model and no checkpoint to go on from\n"
                "  remedy: choose another output_dir, or delete it to start anew"
            )
        return None
    if not _holds_weights(whole[0]):
        raise RecipeError(f"{whole[0]}: holds no weights\n  remedy: delete it to go on from the one before")
    return whole[0]


def _holds_weights(directory: Path) -> bool:
    return any(any(directory.glob(pattern)) for pattern in WEIGHT_FILES)


def warn_of_long_warmup(args: Any, num_rows: int) -> None:
    """Warn when warm-up is longer than the run, for then the peak learning rate is never reached."""
    steps = training_steps(args, num_rows)
    warmup = args.get_warmup_steps(steps)
    if warmup > steps:
        logger.warning(
            "warm-up of %d steps is longer than the run of %d steps: the peak learning rate is never reached; "
            "set warmup_steps lower or train longer",
            warmup,
            steps,
        )


def training_steps(args: Any, num_rows: int) -> int:
    """Optimizer steps of a run on that many rows."""
    rows_per_step = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    limit: int = args.max_steps
    return limit if limit > 0 else math.ceil(args.num_train_epochs * num_rows / rows_per_step)


def part_table(sizes: Iterable[PartSize]) -> Table:
    """Parameters per part and how many of them train."""
    table = Table("part", "parameters", "trainable", title="Trainable parts")
    total = trainable = 0
    for size in sizes:
        table.add_row(size.part, f"{size.parameters:,}", f"{size.trainable:,}")
        total, trainable = total + size.parameters, trainable + size.trainable
    table.add_section()
    table.add_row("all", f"{total:,}", f"{trainable:,} ({trainable / total:.1%})")
    return table


def load_rows(recipe: Recipe, split: str, counts: PairCounts) -> Dataset:
    """The rows of a split that the stage trains on, filtered as the recipe says; `counts` tells what was left out."""
    run, directory = recipe.run, Path(recipe.run.dataset)
    is_preference = isinstance(recipe.training, EntropyDPOConfig)
    return load_ad_pl(
        directory,
        split=split,
        kind="preference" if is_preference else "completion",
        datasets=run.datasets,
        facts=facts_path(run) if recipe.training.facts != "none" else None,
        scores=(run.scores or directory / "scores.jsonl") if is_preference else None,
        turns=run.turns,
        pairs=run.pairs,
        entropy=run.entropy,
        drop_inverted=run.drop_inverted,
        drop_incomplete=run.drop_incomplete,
        counts=counts,
    )


def build_trainer(args: Any, models: Models, train_rows: Dataset, validation_rows: Dataset | None) -> Any:
    """The stage's trainer.

    Raises:
        RecipeError: the recipe's keys do not go together.
    """
    shared = {
        "args": args,
        "train_dataset": train_rows,
        "eval_dataset": validation_rows,
        "processing_class": models.processor,
    }
    try:
        if not isinstance(args, EntropyDPOConfig):
            return SFETrainer(models.model, **shared)
        return EntropyDPOTrainer(models.model, models.reference, **shared)
    except (ValueError, TypeError) as error:
        raise RecipeError(f"the trainer cannot be built: {error}\n  remedy: mend the recipe's keys") from error
