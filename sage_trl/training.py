"""One training run from a recipe: seed, data, model, trainer, train, save."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from datasets import Dataset
from rich.console import Console
from rich.table import Table
from transformers import set_seed

from sage_trl.data.rows import PairCounts, load_ad_pl
from sage_trl.errors import RecipeError
from sage_trl.model_building import Models, build_models, facts_path
from sage_trl.models.parts import PartSize
from sage_trl.recipe import Recipe
from sage_trl.recording import describe_run
from sage_trl.resuming import find_checkpoint, identify, refuse_another_run
from sage_trl.run_folder import events, refuse_unwritable, run_files
from sage_trl.run_record import write_run_record
from sage_trl.trainer.agreement import from_main_process
from sage_trl.trainer.balance import Imbalance
from sage_trl.trainer.entropy_dpo_config import EntropyDPOConfig
from sage_trl.trainer.entropy_dpo_trainer import EntropyDPOTrainer
from sage_trl.trainer.machine_faults import machine_faults
from sage_trl.trainer.sfe_trainer import SFETrainer
from sage_trl.trainer.stop_on_signal import StopOnSignal
from sage_trl.trainer.trackers import guard_trackers

logger = logging.getLogger(__name__)


def run_training(recipe: Recipe, console: Console) -> Path:
    """Train as the recipe says and save model and processor.

    Returns:
        The directory of the trained model.

    Raises:
        SageError: recipe, data or model cannot be used, and nothing was trained; or a signal stopped the run, or it
            diverged, or the machine failed, and its checkpoints are there.
    """
    run, args = recipe.run, recipe.training
    output_dir = Path(args.output_dir)
    stop = StopOnSignal()
    with stop.listening(), machine_faults():
        refuse_unwritable(output_dir)
        checkpoint = find_checkpoint(output_dir, resume=run.resume)
        identity = identify(recipe)
        told = [] if checkpoint is None else refuse_another_run(checkpoint, identity, anyway=run.resume_anyway)
        set_seed(args.seed)
        counts = PairCounts()
        train_rows = load_rows(recipe, run.split, counts)
        validation_rows = None
        if run.validation_split is not None:
            validation_rows = load_rows(recipe, run.validation_split, PairCounts())
        trainer = build_trainer(args, build_models(recipe), train_rows, validation_rows)
        warn_of_long_warmup(args, trainer.batches_per_epoch())
        trainer.run_identity = identity.model_dump()
        trainer.add_callback(stop)
        guard_trackers(trainer)
        balance = trainer.balance()
        with run_files(recipe) if trainer.is_world_process_zero() else nullcontext() as metrics:
            if metrics is not None:
                trainer.add_callback(metrics)
                for difference in told:
                    logger.warning("resuming a run that differs: %s", difference)
                beginning = "starting anew" if checkpoint is None else f"resuming {checkpoint.name}"
                introduce(trainer, counts, balance, f"{len(train_rows)} rows; {beginning}", console)
            from_main_process(lambda: trainer.make_room(output_dir))
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
            if stop.has_stopped:
                raise stop.error(trainer.state.global_step)
            save_result(recipe, trainer)
    if trainer.is_world_process_zero():
        console.print(f"saved {output_dir}")
    return output_dir


def introduce(trainer: Any, counts: PairCounts, balance: Imbalance | None, beginning: str, console: Console) -> None:
    """Say what is about to be trained."""
    events.info(beginning)
    console.print(part_table(trainer.part_sizes))
    console.print(f"attention: {trainer.model.config._attn_implementation}")
    if counts.questions:
        console.print(counts.summary(), highlight=False)
    if balance is not None:
        console.print(str(balance), highlight=False, soft_wrap=True)
    console.print(beginning)


def save_result(recipe: Recipe, trainer: Any) -> None:
    """Save the trained model with the record of its run.

    Raises:
        DivergedError: its weights are not finite.
    """
    trainer.refuse_poisoned_weights()
    trainer.save_state()
    if trainer.is_world_process_zero():
        write_run_record(Path(trainer.args.output_dir), describe_run(recipe, trainer))
    trainer.save_model()  # comes last, because with push_to_hub it publishes what is there
    events.info("done after step %d", trainer.state.global_step)


def warn_of_long_warmup(args: Any, batches_per_epoch: int) -> None:
    """Warn when warm-up is longer than the run, for then the peak learning rate is never reached."""
    steps = training_steps(args, batches_per_epoch)
    warmup = args.get_warmup_steps(steps)
    if warmup > steps:
        logger.warning(
            "warm-up of %d steps is longer than the run of %d steps: the peak learning rate is never reached; "
            "set warmup_steps lower or train longer",
            warmup,
            steps,
        )


def training_steps(args: Any, batches_per_epoch: int) -> int:
    """Optimizer steps of a run whose processes have that many batches in an epoch, as the `Trainer` counts them."""
    limit: int = args.max_steps
    steps_per_epoch = max(1, math.ceil(batches_per_epoch / args.gradient_accumulation_steps))
    return limit if limit > 0 else math.ceil(args.num_train_epochs * steps_per_epoch)


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
    except (ValueError, TypeError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "to be installed" not in str(error):  # says a tracker of report_to
            raise
        raise RecipeError(f"the trainer cannot be built: {error}\n  remedy: mend the recipe's keys") from error
