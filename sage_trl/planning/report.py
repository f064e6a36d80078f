"""A plan as tables."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from sage_trl.planning.dry_run import Usage
from sage_trl.planning.memory import MemoryPlan
from sage_trl.planning.sharding import Placement, per_gpu
from sage_trl.training import part_table

NAMES = {
    "weights": "weights",
    "reference": "weights of the reference",
    "buffers": "buffers, 4-bit scales",
    "gradients": "gradients",
    "optimizer": "optimizer state",
    "activations": "activations",
    "recomputed": "activations, recomputed layer",
    "weight_copies": "autocast's copies of weights",
    "gathered": "gathered layers, communication",
}
NOTE = (
    "Not counted: workspaces and temporaries of kernels, what the allocator rounds up to, and the CUDA context; "
    "docs/memory.md has the arithmetic."
)


def print_plan(plan: MemoryPlan, placement: Placement, gpu_memory: int | None, console: Console) -> None:
    """Print parameters per part, bytes per GPU, what they were counted on, and whether they fit.

    Args:
        plan: the plan.
        placement: how it is spread over GPUs; what a GPU would hold that holds all is printed beside it.
        gpu_memory: bytes of a GPU, None if that is not asked.
        console: where to.
    """
    console.print(part_table(plan.part_sizes))
    usage = per_gpu(plan.run, placement, plan.compute_bytes)
    console.print(memory_table(plan.usage, usage, placement))
    sequences, tokens = plan.run.batch
    lines = [f"Counted on the longest batch: {sequences} sequences of {tokens} tokens, out of {plan.rows} rows."]
    unbroken = plan.run.unbroken_activations
    if unbroken > plan.usage.activations:
        lines.append(f"Without gradient checkpointing activations would take {_gib(unbroken)} GiB.")
    lines.append(f"Work of one such batch: {plan.run.flops / 1e12:,.1f} TFLOP on each GPU, counted.")
    if gpu_memory is not None:
        word = "fits" if usage.total <= gpu_memory else "does not fit"
        lines.append(f"{_gib(usage.total)} GiB per GPU: {word} {_gib(gpu_memory)} GiB.")
    for line in (*lines, NOTE):
        console.print(line, highlight=False)


def memory_table(whole: Usage, usage: Usage, placement: Placement) -> Table:
    """Bytes and GiB per GPU.

    Args:
        whole: on one GPU that holds all.
        usage: as placed.
        placement: how.
    """
    table = Table("", "bytes", "GiB", title="Memory per GPU")
    columns = [usage]
    if not placement.changes_nothing:
        offloaded = ", offloaded" if placement.offloads else ""
        table.title = f"Memory per GPU of {placement.processes}, {placement.sharding}{offloaded}"
        columns.append(whole)
        table.add_column("GiB, one GPU alone")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, words in NAMES.items():
        values = [getattr(column, name) for column in columns]
        if name != "gathered" or any(values):
            table.add_row(words, f"{values[0]:,}", *map(_gib, values))
    table.add_section()
    totals = [column.total for column in columns]
    table.add_row("all", f"{totals[0]:,}", *map(_gib, totals))
    return table


def _gib(count: int) -> str:
    return f"{count / 2**30:,.2f}"
