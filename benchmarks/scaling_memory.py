"""Writes docs/scaling_memory.md, from plans of the recipes on released shapes: python benchmarks/scaling_memory.py.

Nothing is measured: bytes and operations are counted by `tools/train.py --plan`'s own code.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rich.console import Console

from sage_trl.planning.command import MOST_TILES
from sage_trl.planning.dry_run import without_reference
from sage_trl.planning.memory import OVERRIDES, MemoryPlan, plan_memory
from sage_trl.planning.on_paper import SHAPES, put_on_paper
from sage_trl.planning.sharding import Placement, Sharding, per_gpu
from sage_trl.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[1]
STAGES = {"sfe": "Stage 1, SFE", "edpo": "Stage 2, E-DPO"}
FORMS = {"LoRA": "_lora", "QLoRA": "_qlora", "full": ""}
# Rows per GPU, the recipes' own first.
BATCHES = (4, 1)
ROWS_A_STEP = 32
ASSUMED_UTILISATION = 0.4
# Dense bf16 operations a second, as the vendor states them.
PEAKS = {"A100": 312e12, "H100": 989e12}


@dataclass(frozen=True)
class Machine:
    """GPUs, the bytes of one, and what they may share, the fastest first."""

    name: str
    processes: int
    memory: int
    shardings: tuple[Sharding, ...]


MACHINES = (
    Machine("1 x 24 GB", 1, 24 * 10**9, ("ddp",)),
    Machine("1 x 80 GB", 1, 80 * 10**9, ("ddp",)),
    Machine("8 x 80 GB", 8, 80 * 10**9, ("ddp", "fsdp2")),
    Machine("2 x 8 x 80 GB", 16, 80 * 10**9, ("ddp", "fsdp2")),
)


@cache
def plan(stage: str, form: str, shape: str, batch: int) -> MemoryPlan:
    """The plan of a recipe with that many rows per GPU."""
    overrides = ["--per_device_train_batch_size", str(batch), *OVERRIDES]
    recipe = load_recipe(ROOT / "recipes" / f"{stage}{FORMS[form]}.yaml", overrides)
    with tempfile.TemporaryDirectory() as directory:
        return plan_memory(put_on_paper(recipe, shape, MOST_TILES, Path(directory)))


def cell(stage: str, form: str, shape: str, machine: Machine, *, cached: bool) -> str:
    """Whether it fits, how, and the GiB per GPU; where nothing fits, what the least would take."""
    totals: list[int] = []
    fixed: list[int] = []
    for batch in BATCHES:
        for sharding in machine.shardings:
            made = plan(stage, form, shape, batch)
            run = without_reference(made.run) if cached else made.run
            usage = per_gpu(run, Placement(machine.processes, sharding), made.compute_bytes)
            how = f", {sharding}" if machine.processes > 1 else ""
            if usage.total <= machine.memory:
                return f"{_gib(usage.total)}{how}, batch {batch}"
            totals.append(usage.total)
            fixed.append(usage.total - usage.activations - usage.recomputed)
        if min(fixed) > machine.memory:
            break  # a smaller batch would not help
    return f"no ({_gib(min(totals))})"


def tables(shapes: Sequence[str], stages: Sequence[str], forms: Sequence[str]) -> Iterator[str]:
    """The lines of the page's tables."""
    for stage in stages:
        yield f"\n## {STAGES[stage]}\n"
        yield "| model | weights that train | " + " | ".join(machine.name for machine in MACHINES) + " |"
        yield "|---|---|" + "---|" * len(MACHINES)
        for shape in shapes:
            for form in forms:
                # The reference of full training: a second model, or its answers from a cache.
                kinds = (False, True) if stage == "edpo" and form == "full" else (False,)
                for cached in kinds:
                    cells = [cell(stage, form, shape, machine, cached=cached) for machine in MACHINES]
                    label = form + (", reference cached" if cached else "")
                    yield f"| {shape} | {label} | " + " | ".join(cells) + " |"
        yield f"\n| model | weights that train | TFLOP of {BATCHES[0]} rows | {_seconds_header()} |"
        yield "|---|---|---|" + "---|" * (2 * len(PEAKS))
        for shape in shapes:
            for form in forms:
                flops = plan(stage, form, shape, BATCHES[0]).run.flops
                yield f"| {shape} | {form} | {flops / 1e12:,.0f} | " + " | ".join(_seconds(flops)) + " |"


def _seconds_header() -> str:
    return " | ".join(f"s a step, {gpus} x {name}" for name in PEAKS for gpus in (1, 8))


def _seconds(flops: int) -> Iterator[str]:
    """Of a step of `ROWS_A_STEP` rows."""
    for peak in PEAKS.values():
        for gpus in (1, 8):
            yield f"{flops * ROWS_A_STEP / BATCHES[0] / gpus / peak / ASSUMED_UTILISATION:,.1f}"


def _gib(count: int) -> str:
    return f"{count / 2**30:,.0f} GiB"


RATES = ", ".join(f"{name} {peak / 1e12:.0f} TFLOP/s" for name, peak in PEAKS.items())
HEAD = f"""# Memory and work at scale

    python benchmarks/scaling_memory.py

writes this page. **Counted, not measured**: each figure comes from one training step on tensors without memory
([memory.md](memory.md)), with the configuration of the released InternVL2 and the recipes as they are: bf16,
gradient checkpointing, AdamW, shared prefixes. The batch is one assumed group: five questions with four answers of 60
tokens, ten facts, a test and a reference image of {MOST_TILES} tiles each, the most that InternVL2 makes of an image.
Smaller photos take less.

A cell says what one GPU holds, what the GPUs share (`ddp`: nothing; `fsdp2`: weights, gradients, optimizer state) and
the rows per GPU. Where the recipes' {BATCHES[0]} rows do not fit, {BATCHES[1]} is tried, for which
`gradient_accumulation_steps` makes up. `no` says what the least would take. 80 GB is 80 x 10^9 bytes, so that some
5 GiB of such a GPU (1.6 GiB of one of 24 GB) are left for what is not counted: workspaces, the allocator's fragments,
the CUDA context, NCCL.

Seconds are the counted operations of a step of {ROWS_A_STEP} rows, the reference's and recomputed ones included, at an
assumed {ASSUMED_UTILISATION:.0%} of the vendor's dense bf16 rate ({RATES}).
Communication, loading and the optimizer are not in them.
"""


def main() -> None:
    """Count and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "scaling_memory.md", metavar="FILE")
    arguments = parser.parse_args()
    log = Console(stderr=True)
    lines = [HEAD]
    for line in tables(arguments.shapes, arguments.stages, arguments.forms):
        log.print(line, soft_wrap=True, highlight=False)
        lines.append(line)
    arguments.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
