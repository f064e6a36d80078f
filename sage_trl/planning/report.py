"""A plan as tables."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from sage_trl.planning.dry_run import Usage
from sage_trl.planning.memory import MemoryPlan, sharded
from sage_trl.training import part_table

NAMES = {
    "weights": "weights",
    "reference": "weights of the reference",
    "buffers": "buffers, 4-bit scales",
    "gradients": "gradients",
    "optimizer": "optimizer state",
    "activations": "activations",
    "recomputed": "activations, recomputed layer",
}
NOTE = (
    "Not counted: workspaces and temporaries of kernels, what the allocator rounds up to, the CUDA context, and with "
    "several processes the buffers of their communication (those of DDP are as large as the gradients)."
)


def print_plan(plan: MemoryPlan, processes: int, console: Console) -> None:
    """Print parameters per part, bytes per GPU, and what they were counted on.

    Args:
        plan: the plan.
        processes: number of GPUs; above one, what each holds if all is divided among them is printed too.
        console: where to.
    """
    console.print(part_table(plan.part_sizes))
    console.print(memory_table(plan.usage, processes))
    console.print(
        f"Counted on the longest batch: {plan.sequences} sequences of {plan.tokens} tokens, out of {plan.rows} rows.",
        highlight=False,
    )
    if processes > 1:
        divided = "weights, gradients and optimizer state are divided among"
        console.print(f"Shards: {divided} {processes} GPUs (full sharding).", highlight=False)
    console.print(NOTE, highlight=False)


def memory_table(usage: Usage, processes: int) -> Table:
    """Bytes and GiB per GPU."""
    table = Table("", "bytes", "GiB", title="Memory per GPU")
    columns = [usage]
    if processes > 1:
        columns.append(sharded(usage, processes))
        table.add_column(f"GiB, {processes} shards")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, words in NAMES.items():
        values = [getattr(column, name) for column in columns]
        table.add_row(words, f"{values[0]:,}", *map(_gib, values))
    table.add_section()
    totals = [column.total for column in columns]
    table.add_row("all", f"{totals[0]:,}", *map(_gib, totals))
    return table


def _gib(count: int) -> str:
    return f"{count / 2**30:,.2f}"
