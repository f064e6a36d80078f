"""One E-DPO step, stock TRL against shared prefixes: python benchmarks/edpo_step.py --prompt-tokens 256 1024."""

from __future__ import annotations

import argparse
import copy
import tempfile
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from trl import DPOConfig, DPOTrainer

from benchmarks.group import SHAPES, build_model, preference_rows
from benchmarks.measuring import measure, whole_step
from sage_trl.trainer.collators import EntropyDPOCollator
from sage_trl.trainer.entropy_dpo_config import EntropyDPOConfig
from sage_trl.trainer.entropy_dpo_trainer import EntropyDPOTrainer

NOT_STOCK = ("delta_entropy", "pair_kind")


def stock_trainer(model: Any, reference: Any, processor: Any, rows: Any, options: dict[str, Any]) -> Any:
    """TRL's trainer on our collator's rows: the same pairs, images and facts, one row after the other."""
    plain = EntropyDPOCollator(processor)

    def collate(examples: list[dict[str, Any]]) -> dict[str, Any]:
        return {key: value for key, value in plain(examples).items() if key not in NOT_STOCK}

    args = DPOConfig(max_length=None, **options)
    return DPOTrainer(
        model, ref_model=reference, args=args, train_dataset=rows, processing_class=processor, data_collator=collate
    )


def build_variants(arguments: argparse.Namespace, prompt_tokens: int, directory: Path) -> tuple[dict[str, Any], int]:
    """Name -> step of every trainer, and the number of pairs in a step."""
    shape = SHAPES[arguments.shape]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    policy, processor = build_model(shape, device, dtype)
    processor.image_processor.crop_to_patches = True
    processor.image_processor.max_patches = 64
    tile = processor.image_processor.size["height"]
    rows = preference_rows(arguments.questions, prompt_tokens // shape.tile_tokens, tile, arguments.answer_tokens)
    reference = copy.deepcopy(policy)
    options = {
        "output_dir": str(directory),
        "per_device_train_batch_size": len(rows),
        "bf16": device.type != "cpu",
        "gradient_checkpointing": arguments.gradient_checkpointing,
        "report_to": "none",
        "save_strategy": "no",
        "learning_rate": 1e-6,
    }
    examples = list(rows)
    variants = {}
    for name in arguments.variants:
        model = copy.deepcopy(policy)
        if name.startswith("stock"):
            trainer = stock_trainer(model, reference, processor, rows, options)
            if name == "stock, tower frozen":
                for key, parameter in model.named_parameters():
                    parameter.requires_grad_(not key.startswith(("model.vision_tower.", "model.fusion.")))
        else:
            layout = {"shared_prefix": name != "ours, row by row"}
            form = "dense" if name == "trees, dense" else "auto"
            args = EntropyDPOConfig(tree_attention=form, reference_dropout=0.0, **layout, **options)
            trainer = EntropyDPOTrainer(
                model, copy.deepcopy(reference), args, train_dataset=rows, processing_class=processor
            )
        variants[name] = whole_step(trainer, examples)
    return variants, len(rows)


ALL_VARIANTS = ("stock", "stock, tower frozen", "trees, dense", "trees, split")


def main() -> None:
    """Measure and print a table for every prompt length."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompt-tokens", type=int, nargs="+", default=[256, 1024, 3072], help="image tokens")
    parser.add_argument("--questions", type=int, default=5)
    parser.add_argument("--answer-tokens", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--shape", choices=SHAPES, default="cpu")
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--variants", nargs="+", default=list(ALL_VARIANTS), choices=ALL_VARIANTS)
    arguments = parser.parse_args()
    console, log = Console(), Console(stderr=True)
    for prompt_tokens in arguments.prompt_tokens:
        with tempfile.TemporaryDirectory() as directory:
            variants, pairs = build_variants(arguments, prompt_tokens, Path(directory))
            found = measure(variants, arguments.repeats, log.print)
        title = f"E-DPO step, {pairs} pairs, {prompt_tokens} image tokens, {torch.get_num_threads()} threads"
        table = Table("variant", "s/step", "spread", "pairs/s", "tokens", "peak GiB", "speed", "memory", title=title)
        base = found[arguments.variants[0]]
        for name, one in found.items():
            table.add_row(
                name,
                f"{one.median:.2f}",
                f"{one.spread:.0%}",
                f"{pairs / one.median:.2f}",
                f"{one.tokens:,}",
                f"{one.peak:.2f}",
                f"{base.median / one.median:.2f}x",
                f"{one.peak / base.peak:.2f}",
            )
        console.print(table)


if __name__ == "__main__":
    main()
