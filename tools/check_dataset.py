"""Find every fault of a dataset: python tools/check_dataset.py --dataset data/synthetic."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, TextColumn

from sage_trl.command_line import run_tool
from sage_trl.data.validation import check_dataset, unusual_shapes
from sage_trl.errors import DataError


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", required=True, type=Path, help="dataset directory")
    parser.add_argument("--show", type=int, default=10, help="faults to print at most")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    return parser.parse_args()


def main() -> int:
    arguments = _parse()
    columns = (TextColumn("{task.completed} groups"),)
    with Progress(*columns, console=Console(stderr=True, quiet=arguments.quiet)) as progress:
        task = progress.add_task("check", total=None)
        faults = check_dataset(arguments.dataset, lambda done: progress.update(task, completed=done))
    if faults:
        shown = "\n".join(str(fault) for fault in faults[: arguments.show])
        hidden = len(faults) - arguments.show
        rest = f"\n... and {hidden} more, see --show" if hidden > 0 else ""
        raise DataError(f"{len(faults)} faults in {arguments.dataset}\n{shown}{rest}")
    console = Console(quiet=arguments.quiet)
    for name, count in unusual_shapes(arguments.dataset).items():
        console.print(f"note: {name}: {count}", soft_wrap=True)
    console.print(f"{arguments.dataset}: no fault found", soft_wrap=True)
    return 0


if __name__ == "__main__":
    run_tool(main)
