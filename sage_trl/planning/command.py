"""The command line of `tools/train.py --plan`."""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from sage_trl.command_line import positive_number
from sage_trl.errors import RecipeError
from sage_trl.planning.memory import OVERRIDES, MemoryPlan, plan_memory
from sage_trl.planning.on_paper import LARGEST_GRID, SHAPES, put_on_paper
from sage_trl.planning.sharding import SHARDINGS, Placement, read_placement
from sage_trl.recipe import load_recipe

# A released InternVL2 cuts an image into at most twelve tiles, and adds a thumbnail.
MOST_TILES = 13
UNITS = {"GB": 10**9, "GIB": 2**30}


def add_plan_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that go with `--plan`."""
    group = parser.add_argument_group("with --plan")
    group.add_argument("--processes", type=positive_number, metavar="N", help="number of GPUs, by default 1")
    shares = group.add_mutually_exclusive_group()
    shares.add_argument("--sharding", choices=SHARDINGS, help="what they share; by default fsdp2")
    shares.add_argument(
        "--accelerate_config", type=Path, metavar="FILE", help="take both from a file of recipes/accelerate"
    )
    group.add_argument("--gpu_memory", type=memory_size, metavar="SIZE", help="say whether it fits, such as 80GB")
    group.add_argument(
        "--shape", choices=SHAPES, help="plan this model, from its configuration alone, on one assumed group"
    )
    group.add_argument(
        "--tiles", type=tile_count, metavar="N", help=f"with --shape: tiles of an image, by default {MOST_TILES}"
    )


def refuse_plan_arguments(parser: argparse.ArgumentParser, known: argparse.Namespace) -> None:
    """End with a usage error if an option that goes with `--plan` stands without it."""
    for name in ("processes", "sharding", "accelerate_config", "gpu_memory", "shape", "tiles"):
        if getattr(known, name) is not None:
            parser.error(f"--{name} needs --plan; accelerate launch starts several processes for training")


def plan_from(known: argparse.Namespace, overrides: Sequence[str]) -> tuple[MemoryPlan, Placement]:
    """Make the plan that a command line asks for.

    Args:
        known: the parsed options.
        overrides: recipe keys.

    Raises:
        SageError: recipe, dataset, model or configuration cannot be used, or an option would change nothing.
    """
    for name, other in (("tiles", "shape"), ("sharding", "processes")):
        if getattr(known, name) is not None and getattr(known, other) is None:
            raise RecipeError(f"--{name} needs --{other}\n  remedy: add --{other}, or leave --{name} out")
    if known.accelerate_config is not None:
        placement = read_placement(known.accelerate_config, known.processes)
    else:
        placement = Placement(known.processes or 1, known.sharding or "fsdp2")
    recipe = load_recipe(known.recipe, [*overrides, *OVERRIDES])
    if known.shape is None:
        return plan_memory(recipe), placement
    with tempfile.TemporaryDirectory() as directory:
        return plan_memory(put_on_paper(recipe, known.shape, known.tiles or MOST_TILES, Path(directory))), placement


def tile_count(text: str) -> int:
    """Tiles of an image: one, or two and more with a thumbnail.

    Raises:
        ArgumentTypeError: anything else.
    """
    count = positive_number(text)
    if count == 2 or count > LARGEST_GRID + 1:
        raise argparse.ArgumentTypeError(
            f"no image has {count} tiles: it has one, or 2 to {LARGEST_GRID} and a thumbnail, 3 to {LARGEST_GRID + 1}"
        )
    return count


def memory_size(text: str) -> int:
    """Bytes from a number with a unit, `80GB` or `79.6GiB`.

    Raises:
        ArgumentTypeError: anything else.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?(GB|GiB)", text, re.IGNORECASE)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no size of memory; write it such as 80GB or 79.6GiB")
    return int(float(found[1]) * UNITS[found[2].upper()])
