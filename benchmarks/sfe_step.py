"""One SFE step, stock TRL against shared prefixes: python benchmarks/sfe_step.py --prompt-tokens 256 1024."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from trl import SFTConfig, SFTTrainer

from benchmarks.group import SHAPES, build_model, completion_rows, copy_to_train
from benchmarks.running import RowsOf, freeze_tower, run, training_options
from sage_trl.trainer.collators import SFECollator
from sage_trl.trainer.sfe_config import SFEConfig
from sage_trl.trainer.sfe_trainer import SFETrainer

VARIANTS = ("stock", "stock, tower frozen", "rows, vision once", "trees, dense", "trees, split")


def build_variants(arguments: argparse.Namespace, prompt_tokens: int, directory: Path) -> tuple[dict[str, Any], RowsOf]:
    """See `running.BuildVariants`."""
    shape = SHAPES[arguments.shape]
    policy, processor, tile = build_model(shape, bf16=arguments.bf16)
    rows_of = partial(
        completion_rows,
        questions=arguments.questions,
        tiles=prompt_tokens // shape.tile_tokens,
        tile=tile,
        answer_tokens=arguments.answer_tokens,
    )
    rows = rows_of(1)
    options = training_options(arguments, directory, len(rows))
    variants = {}
    for name in arguments.variants:
        model = copy_to_train(policy, arguments.lora)
        shared = {"train_dataset": rows, "processing_class": processor}
        if name.startswith("stock"):
            args = SFTConfig(max_length=None, **options)
            trainer = SFTTrainer(model, args=args, data_collator=SFECollator(processor), **shared)
            if name == "stock, tower frozen":
                freeze_tower(model)
        else:
            own: dict[str, Any] = {"tree_attention": "dense" if name == "trees, dense" else "split"}
            if name == "rows, vision once":
                own = {"shared_prefix": False}
            args = SFEConfig(reference_dropout=0.0, **own, **options)
            trainer = SFETrainer(model, args, **shared)
        variants[name] = trainer
    return variants, rows_of


if __name__ == "__main__":
    run(__doc__, build_variants, VARIANTS, "questions")
