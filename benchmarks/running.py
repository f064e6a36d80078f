"""The command line and the table of the step benchmarks."""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.group import SHAPES
from benchmarks.measuring import Measurement, measure

# Name -> step of every variant that was asked for, and the number of rows in a step.
BuildVariants = Callable[[argparse.Namespace, int, Path], tuple[dict[str, Any], int]]


def run(description: str | None, build_variants: BuildVariants, variants: Sequence[str], unit: str) -> None:
    """Measure every prompt length and print a table for each."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--prompt-tokens", type=int, nargs="+", default=[256, 1024, 3072], help="image tokens")
    parser.add_argument("--questions", type=int, default=5)
    parser.add_argument("--answer-tokens", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--shape", choices=SHAPES, default="cpu")
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--variants", nargs="+", default=list(variants), choices=variants, help="the first is the base")
    arguments = parser.parse_args()
    console, log = Console(width=140), Console(stderr=True)
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "trl", "peft"))
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} CPU cores"
    console.print(f"{device}, {torch.get_num_threads()} threads; {versions}; shape {arguments.shape}")
    for prompt_tokens in arguments.prompt_tokens:
        with tempfile.TemporaryDirectory() as directory:
            steps, rows = build_variants(arguments, prompt_tokens, Path(directory))
            found = measure(steps, arguments.repeats, SHAPES[arguments.shape].vocab_size, log.print)
        console.print(_table(f"{prompt_tokens} image tokens, {rows} {unit} a step", found, rows, unit))


def training_options(arguments: argparse.Namespace, directory: Path, rows: int) -> dict[str, Any]:
    """What all trainers share."""
    return {
        "output_dir": str(directory),
        "per_device_train_batch_size": rows,
        "bf16": torch.cuda.is_available(),
        "gradient_checkpointing": arguments.gradient_checkpointing,
        "report_to": "none",
        "save_strategy": "no",
        "learning_rate": 1e-6,
    }


def freeze_tower(model: Any) -> None:
    """Freeze what our stages freeze, for a stock trainer that is tuned as ours."""
    frozen = ("model.vision_tower.", "model.fusion.", "model.language_model.embed_tokens.")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith(frozen))


def _table(title: str, found: dict[str, Measurement], rows: int, unit: str) -> Table:
    columns = (
        "variant",
        "s/step",
        "spread",
        f"{unit}/s",
        "tokens",
        "TFLOP",
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
            f"{one.work.head_share:.0%}",
            f"{one.peak:.2f}",
            f"{base.median / one.median:.2f}x",
            f"{base.work.total / one.work.total:.2f}x",
            f"{one.peak / base.peak:.2f}",
        )
    return table
