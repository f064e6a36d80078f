"""Convert a released InternVL2 checkpoint: python tools/convert_internvl2.py InternVL2-8B models/internvl2-8b."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sage_trl.command_line import run_tool
from sage_trl.models.internvl2.conversion import convert_checkpoint


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, metavar="SRC", help="directory of the checkpoint as it was released")
    parser.add_argument("destination", type=Path, metavar="DST", help="directory to write, absent or empty")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    return parser.parse_args()


def main() -> int:
    arguments = _parse()
    columns = (TextColumn("shards"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True, quiet=arguments.quiet)) as progress:
        task = progress.add_task("shards", total=None)

        def on_shard(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        convert_checkpoint(arguments.source, arguments.destination, on_shard)
    Console(quiet=arguments.quiet).print(f"{arguments.destination}: written", soft_wrap=True)
    return 0


if __name__ == "__main__":
    run_tool(main)
