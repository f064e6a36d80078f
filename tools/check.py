"""Find every fault of a dataset, or of a recipe and all it needs, before training meets the first.

    python tools/check.py data/ad_pl
    python tools/check.py recipes/sfe.yaml --dataset data/ad_pl --json

Exit code 2 if there is an error; warnings alone give 0. A recipe's keys can be overridden as for tools/train.py.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import warnings
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from sage_trl.command_line import positive_number, run_tool
from sage_trl.data.checks.findings import Report
from sage_trl.data.checks.report import print_report
from sage_trl.data.validation import examine_dataset
from sage_trl.errors import DataError


def main() -> int:
    """Parse, check, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", type=Path, metavar="DATASET|RECIPE", help="AD-PL directory, or YAML recipe")
    parser.add_argument("--json", action="store_true", help="print all findings as JSON instead of the table")
    parser.add_argument("--show", type=positive_number, default=5, metavar="N", help="findings of a kind to print (5)")
    parser.add_argument("--quiet", action="store_true", help="no progress; print nothing if nothing was found")
    arguments, overrides = parser.parse_known_args()
    is_recipe = arguments.target.is_file()
    if not is_recipe and not arguments.target.is_dir():
        raise DataError.at(arguments.target, None, "no such dataset or recipe", "check the path")
    if overrides and not is_recipe:
        parser.error(f"unrecognized arguments: {' '.join(overrides)}")
    report = _check(arguments.target, overrides, is_recipe=is_recipe, quiet=arguments.quiet)
    if arguments.json:
        print(json.dumps(report.as_json(), indent=2, ensure_ascii=False))
    elif report.findings or not arguments.quiet:
        print_report(report, arguments.show, Console(soft_wrap=True, highlight=False))
    return 2 if report.errors else 0


def _check(target: Path, overrides: list[str], *, is_recipe: bool, quiet: bool) -> Report:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), disable=quiet) as progress:
        task = progress.add_task("check", total=None)

        def show(what: str, done: int, total: int | None) -> None:
            progress.update(task, description=what, completed=done, total=total)

        if not is_recipe:
            return examine_dataset(target, show)
        # Imported only now: loading torch takes seconds, and a dataset's check needs none of it.
        from sage_trl.recipe_check import check_recipe  # noqa: PLC0415

        # TRL's configurations set it by its old name, about which a user can do nothing.
        warnings.filterwarnings("ignore", "`gradient_checkpointing` is deprecated", FutureWarning)
        with contextlib.redirect_stdout(sys.stderr):
            return check_recipe(target, overrides, show)


if __name__ == "__main__":
    run_tool(main)
