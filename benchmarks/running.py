"""The command line and the table of the step benchmarks."""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.group import SHAPES
from benchmarks.measuring import Measurement, largest_that_fits, measure, whole_step
from sage_trl.models.adapters import is_adapted

# From a number of groups to their rows.
RowsOf = Callable[[int], Any]
# Name -> trainer of every variant that was asked for, and the rows of a step.
BuildVariants = Callable[[argparse.Namespace, int, Path], tuple[dict[str, Any], RowsOf]]


def run(description: str | None, build_variants: BuildVariants, variants: Sequence[str], unit: str) -> None:
    """Measure every prompt length and print a table for each."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--prompt-tokens", type=int, nargs="+", default=[256, 1024, 3072], help="image tokens")
    parser.add_argument("--questions", type=int, default=5)
    parser.add_argument("--answer-tokens", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--shape", choices=SHAPES, default="cpu")
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--bf16", action="store_true", default=torch.cuda.is_available(), help="always so on a GPU")
    parser.add_argument("--lora", type=int, metavar="RANK", help="train LoRA on a model whose weights all share")
    parser.add_argument("--peak-tflops", type=float, metavar="N", help="the device's, for the share of it that is used")
    parser.add_argument("--largest-batch", type=int, metavar="GROUPS", help="look for the largest batch, up to so many")
    parser.add_argument("--variants", nargs="+", default=list(variants), choices=variants, help="the first is the base")
    arguments = parser.parse_args()
    console, log = Console(width=140), Console(stderr=True)
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "trl", "peft"))
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} CPU cores"
    console.print(f"{device}, {torch.get_num_threads()} threads; {versions}; shape {arguments.shape}")
    for prompt_tokens in arguments.prompt_tokens:
        with tempfile.TemporaryDirectory() as directory:
            trainers, rows_of = build_variants(arguments, prompt_tokens, Path(directory))
            rows = list(rows_of(1))
            steps = {name: whole_step(trainer, rows) for name, trainer in trainers.items()}
            found = measure(steps, arguments.repeats, SHAPES[arguments.shape].vocab_size, log.print)
            title = f"{prompt_tokens} image tokens, {len(rows)} {unit} a step"
            console.print(_table(title, found, len(rows), unit, arguments.peak_tflops))
            if arguments.largest_batch is not None:
                for name, trainer in trainers.items():
                    groups = largest_that_fits(partial(_step_of, trainer, rows_of), arguments.largest_batch)
                    console.print(f"largest batch, {name}: {groups * len(rows)} {unit}", highlight=False)


def _step_of(trainer: Any, rows_of: RowsOf, groups: int) -> Callable[[], int]:
    return whole_step(trainer, list(rows_of(groups)))


def training_options(arguments: argparse.Namespace, directory: Path, rows: int) -> dict[str, Any]:
    """What all trainers share."""
    return {
        "output_dir": str(directory),
        "per_device_train_batch_size": rows,
        "use_cpu": not torch.cuda.is_available(),
        "bf16": arguments.bf16,
        "activation_checkpointing": arguments.gradient_checkpointing,
        "report_to": "none",
        "save_strategy": "no",
        "learning_rate": 1e-6,
    }


def freeze_tower(model: Any) -> None:
    """Freeze what our stages freeze, for a stock trainer that is tuned as ours; an adapter's base is frozen already."""
    if is_adapted(model):
        return
    frozen = ("model.vision_tower.", "model.fusion.", "model.language_model.embed_tokens.")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith(frozen))


def _table(title: str, found: dict[str, Measurement], rows: int, unit: str, peak_tflops: float | None) -> Table:
    columns = (
        "variant",
        "s/step",
        "spread",
        f"{unit}/s",
        "tokens",
        "TFLOP",
        *(() if peak_tflops is None else ("used",)),
        "head",
        "peak GiB",
        "speed",
        "counted",
        "memory",
    )
    table = Table(*columns, title=title)
    base = next(iter(found.values()))
    for name, one in found.items():
        table.add_row(
            name,
            f"{one.median:.2f}",
            f"{one.spread:.0%}",
            f"{rows / one.median:.2f}",
            f"{one.tokens:,}",
            f"{one.work.total / 1e12:.2f}",
            *(() if peak_tflops is None else (f"{one.work.total / one.median / peak_tflops / 1e12:.1%}",)),
            f"{one.work.head_share:.0%}",
            f"{one.peak:.2f}",
            f"{base.median / one.median:.2f}x",
            f"{base.work.total / one.work.total:.2f}x",
            f"{one.peak / base.peak:.2f}",
        )
    return table
