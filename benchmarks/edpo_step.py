"""One E-DPO step, stock TRL against shared prefixes: python benchmarks/edpo_step.py --prompt-tokens 256 1024."""

from __future__ import annotations

import argparse
import copy
import sys
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from trl import DPOConfig, DPOTrainer

from benchmarks.group import SHAPES, build_model, copy_to_train, preference_rows
from benchmarks.measuring import CACHED
from benchmarks.running import RowsOf, freeze_tower, run, training_options
from sage_trl.trainer.collators import EntropyDPOCollator
from sage_trl.trainer.entropy_dpo_config import EntropyDPOConfig
from sage_trl.trainer.entropy_dpo_trainer import EntropyDPOTrainer

NOT_STOCK = ("delta_entropy", "pair_kind")
VARIANTS = (
    "stock",
    "stock, tower frozen",
    "rows, vision once",
    "trees, dense",
    "trees, split",
    f"trees, split, {CACHED}",
)


def stock_trainer(model: Any, reference: Any, processor: Any, rows: Any, options: dict[str, Any]) -> Any:
    """TRL's trainer on our collator's rows: the same pairs, images and facts, one row after the other."""
    plain = EntropyDPOCollator(processor)

    def collate(examples: list[dict[str, Any]]) -> dict[str, Any]:
        return {key: value for key, value in plain(examples).items() if key not in NOT_STOCK}

    args = DPOConfig(max_length=None, **options)
    return DPOTrainer(
        model, ref_model=reference, args=args, train_dataset=rows, processing_class=processor, data_collator=collate
    )


def build_variants(arguments: argparse.Namespace, prompt_tokens: int, directory: Path) -> tuple[dict[str, Any], RowsOf]:
    """See `running.BuildVariants`."""
    shape = SHAPES[arguments.shape]
    policy, processor, tile = build_model(shape, bf16=arguments.bf16)
    rows_of = partial(
        preference_rows,
        questions=arguments.questions,
        tiles=prompt_tokens // shape.tile_tokens,
        tile=tile,
        answer_tokens=arguments.answer_tokens,
    )
    rows = rows_of(1)
    # An adapter's reference is a frozen copy of the adapter.
    reference = copy.deepcopy(policy) if arguments.lora is None else None
    options = training_options(arguments, directory, len(rows))
    variants = {}
    for name in arguments.variants:
        model = copy_to_train(policy, arguments.lora)
        if name.startswith("stock"):
            trainer = stock_trainer(model, reference, processor, rows, options)
            if name == "stock, tower frozen":
                freeze_tower(model)
        else:
            own: dict[str, Any] = {"tree_attention": "dense" if name == "trees, dense" else "split"}
            if name == "rows, vision once":
                own = {"shared_prefix": False}
            if name.endswith(CACHED):
                own["reference_cache"] = str(directory / "cache")
            args = EntropyDPOConfig(reference_dropout=0.0, **own, **options)
            trainer = EntropyDPOTrainer(
                model, copy.deepcopy(reference), args, train_dataset=rows, processing_class=processor
            )
        variants[name] = trainer
    return variants, rows_of


if __name__ == "__main__":
    run(__doc__, build_variants, VARIANTS, "pairs")
