"""Train a stage: accelerate launch tools/train.py RECIPE [--key value ...]; or plan it: --plan."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
import warnings
from pathlib import Path

from datasets import disable_progress_bars
from rich.console import Console
from transformers.utils.logging import disable_progress_bar

from sage_trl.command_line import run_tool
from sage_trl.planning.command import add_plan_arguments, plan_from, refuse_plan_arguments
from sage_trl.planning.report import print_plan
from sage_trl.recipe import load_recipe
from sage_trl.training import run_training


def main() -> int:
    """Parse and train."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog="Every recipe key can be overridden: --learning_rate 1e-5, --resume, ..."
    )
    parser.add_argument("recipe", type=Path, help="YAML recipe, for example recipes/sfe.yaml")
    parser.add_argument("--plan", action="store_true", help="print the memory that training needs, and do not train")
    add_plan_arguments(parser)
    parser.add_argument("--quiet", action="store_true", help="print nothing but warnings and errors")
    known, overrides = parser.parse_known_args()
    if not known.plan:
        refuse_plan_arguments(parser, known)
    if known.quiet:
        overrides += ["--disable_tqdm", "true"]
        disable_progress_bars()
        disable_progress_bar()
    # TRL's configurations set it by its old name, about which a user can do nothing.
    warnings.filterwarnings("ignore", "`gradient_checkpointing` is deprecated", FutureWarning)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    console = Console(stderr=True, quiet=known.quiet)
    # transformers prints its log lines to stdout, beside the progress bar on stderr.
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere if known.quiet else sys.stderr):
        if known.plan:
            plan, placement = plan_from(known, overrides)
        else:
            run_training(load_recipe(known.recipe, overrides), console)
    if known.plan:
        print_plan(plan, placement, known.gpu_memory, Console())
    return 0


if __name__ == "__main__":
    run_tool(main)
