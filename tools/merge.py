"""Merge an adapter into its base: python tools/merge.py runs/sfe_lora runs/sfe_merged [--plain]."""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path

import torch
from rich.console import Console
from transformers.utils.logging import disable_progress_bar

from sage_trl.command_line import run_tool
from sage_trl.models.export import export_plain, merge_adapter

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def main() -> int:
    """Parse, merge, print where the model lies."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help="adapter, or with --plain any model of ours: directory or hub id")
    parser.add_argument("output", type=Path, help="new directory")
    parser.add_argument("--plain", action="store_true", help="leave out the fusion: a model of the base's own class")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="type of the weights written")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    arguments = parser.parse_args()
    if arguments.quiet:
        disable_progress_bar()
    write = export_plain if arguments.plain else merge_adapter
    # transformers prints its log lines to stdout.
    with contextlib.redirect_stdout(sys.stderr):
        write(arguments.run, arguments.output, dtype=DTYPES[arguments.dtype])
    Console(stderr=True, quiet=arguments.quiet).print(f"saved {arguments.output}")
    return 0


if __name__ == "__main__":
    run_tool(main)
