"""Write the fact sentences of a dataset's test images: python tools/generate_facts.py --dataset data/synthetic."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from sage_trl.command_line import run_tool, seed_number
from sage_trl.data.dataset import read_ad_pl
from sage_trl.data.fact_sets import FACTS_FILE
from sage_trl.errors import DataError
from sage_trl.facts.generation import generate_facts
from sage_trl.facts.template_bank import MAX_FACTS, TemplateBank


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", required=True, type=Path, help="dataset directory")
    parser.add_argument("--writer", default="template", help="template: by category, blind to the label")
    parser.add_argument("--count", type=int, default=4, help=f"sentences per image, 1 to {MAX_FACTS}")
    parser.add_argument("--seed", type=seed_number, default=0)
    parser.add_argument("--output", type=Path, help=f"file to write; default DATASET/{FACTS_FILE}")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    return parser.parse_args()


def main() -> int:
    arguments = _parse()
    if arguments.writer != "template":
        raise DataError(f"writer {arguments.writer!r} is unknown\n  remedy: use template; models come later")
    if not 1 <= arguments.count <= MAX_FACTS:
        raise DataError(f"--count {arguments.count} is out of range\n  remedy: use 1 to {MAX_FACTS}")
    output = arguments.output or arguments.dataset / FACTS_FILE
    ad_pl = read_ad_pl(arguments.dataset)
    with Progress(console=Console(stderr=True, quiet=arguments.quiet)) as progress:
        task = progress.add_task("facts", total=None)
        written = generate_facts(
            ad_pl,
            TemplateBank(arguments.count, arguments.seed),
            output,
            lambda done, total: progress.update(task, completed=done, total=total),
        )
    Console(quiet=arguments.quiet).print(f"{output}: facts written for {written} images", soft_wrap=True)
    return 0


if __name__ == "__main__":
    run_tool(main)
