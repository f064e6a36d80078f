"""What a training run needs per GPU, from one training step that allocates nothing."""

from __future__ import annotations

import copy
import dataclasses
import tempfile
from dataclasses import dataclass

from sage_trl.data.rows import PairCounts
from sage_trl.errors import RecipeError
from sage_trl.model_building import build_models
from sage_trl.models.parts import PartSize
from sage_trl.planning.dry_run import DryRun, Usage, one_step, prepare_arguments, without_reference
from sage_trl.planning.longest_rows import longest_rows
from sage_trl.planning.shape_tensor import NoFloatingMemory, drop_memory
from sage_trl.recipe import Recipe
from sage_trl.training import build_trainer, load_rows, training_steps

# A plan is made where there is no GPU, and must not look for one.
OVERRIDES = ("--use_cpu", "true")


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes per GPU, and the batch that they are counted on.

    Args:
        part_sizes: parameters per part, and how many train.
        run: one step on one GPU that holds all.
        rows: rows of the split, the longest of which make up the batch.
        steps: optimizer steps of the recipe's training by one process.
        compute_bytes: bytes of a weight that takes part in a product.
    """

    part_sizes: tuple[PartSize, ...]
    run: DryRun
    rows: int
    steps: int
    compute_bytes: int

    @property
    def usage(self) -> Usage:
        """Bytes on one GPU that holds all."""
        return self.run.usage


def plan_memory(recipe: Recipe) -> MemoryPlan:
    """Run one step of a recipe on tensors without memory. Weights are not read, and nothing is written.

    Args:
        recipe: a recipe loaded with `OVERRIDES`.

    Raises:
        SageError: the recipe, its dataset or its model cannot be used, or the state of its optimizer is not known.
    """
    if recipe.training.world_size > 1:
        problem = "a plan is made by one process"
        raise RecipeError(f"{problem}\n  remedy: python tools/train.py RECIPE --plan --processes N, without a launcher")
    # FlashAttention has no kernel for the CPU; it keeps what SDPA keeps.
    attention = "eager" if recipe.run.attn_implementation == "eager" else "sdpa"
    recipe = dataclasses.replace(recipe, run=dataclasses.replace(recipe.run, attn_implementation=attention))
    is_cached = getattr(recipe.training, "reference_cache", None) is not None
    if is_cached:
        # The trainer would open the cache; its reference is planned as a model and then left out.
        training = copy.copy(recipe.training)
        training.reference_cache = None  # type: ignore[union-attr]
        recipe = dataclasses.replace(recipe, training=training)
    rows = load_rows(recipe, recipe.run.split, PairCounts())
    models = build_models(recipe, weights=False)
    for model in (models.model, models.reference):
        if model is not None:
            drop_memory(model)
    with tempfile.TemporaryDirectory() as directory, NoFloatingMemory():  # type: ignore[no-untyped-call]
        trainer = build_trainer(prepare_arguments(recipe.training, directory), models, rows, None)
        args = trainer.args
        steps = training_steps(recipe.training, trainer.batches_per_epoch())
        if args.max_tokens_per_batch is None:
            trainer.train_dataset = longest_rows(trainer.train_dataset, trainer.data_collator, args.train_batch_size)
        else:
            trainer.train_dataset = trainer.fullest_batch()
        run = one_step(trainer)
    if is_cached:
        run = without_reference(run)
    compute_bytes = 2 if args.bf16 or args.fp16 else 4
    return MemoryPlan(tuple(trainer.part_sizes), run, len(rows), steps, compute_bytes)
