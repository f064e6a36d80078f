"""Write the fact sentences of a dataset's test images, by the pretrained backbone itself or from templates.

    python tools/generate_facts.py --dataset data/ad_pl --model OpenGVLab/InternVL3-1B-hf --num-facts 10

A run that was stopped goes on where it stopped when the same command is given again. Images with too few facts are
listed in facts.short.jsonl; exit code 3 if some have none.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sage_trl.command_line import positive_number, run_tool, seed_number
from sage_trl.data.dataset import read_ad_pl
from sage_trl.data.fact_sets import FACTS_FILE
from sage_trl.facts.generation import FactReport, generate_facts
from sage_trl.facts.opening import MODEL_COUNT, TEMPLATE, TEMPLATE_COUNT, WriterOptions, open_fact_writer

IN_QUARANTINE = 3


def main() -> int:
    """Parse, write, say what is lacking."""
    arguments = _parser().parse_args()
    output = arguments.output or arguments.dataset / FACTS_FILE
    ad_pl = read_ad_pl(arguments.dataset)
    if arguments.quiet and arguments.model != TEMPLATE:
        from transformers.utils.logging import disable_progress_bar  # noqa: PLC0415

        disable_progress_bar()  # of the weights being loaded
    writer = open_fact_writer(
        WriterOptions(
            model=arguments.model,
            count=arguments.num_facts,
            fill=arguments.fill,
            batch_size=arguments.batch_size,
            max_new_tokens=arguments.max_new_tokens,
            revision=arguments.revision,
            seed=arguments.seed,
        )
    )
    columns = (TextColumn("facts"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=arguments.quiet) as progress:
        task = progress.add_task("facts", total=None)
        report = generate_facts(
            ad_pl, writer, output, lambda done, total: progress.update(task, completed=done, total=total)
        )
    _print(report, writer.count, output, Console(quiet=arguments.quiet, soft_wrap=True, highlight=False))
    return IN_QUARANTINE if report.without else 0


def _print(report: FactReport, count: int, output: Path, console: Console) -> None:
    console.print(f"{output}: facts written for {report.written} images of {report.images}", markup=False)
    if report.short:
        listed = output.with_name(f"{output.stem}.short.jsonl")
        lacking = f"{len(report.short)} images have fewer than {count} facts, {report.without} of them none"
        console.print(f"{lacking}: {listed}", markup=False)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, type=Path, metavar="DIR", help="AD-PL directory")
    parser.add_argument(
        "--model",
        required=True,
        metavar="NAME",
        help=f"directory or hub id; {TEMPLATE}: by category, blind to the label",
    )
    parser.add_argument(
        "--num-facts",
        type=positive_number,
        metavar="N",
        help=f"sentences per image ({MODEL_COUNT}; {TEMPLATE}: {TEMPLATE_COUNT})",
    )
    parser.add_argument("--fill", choices=[TEMPLATE], help="add templates where a model wrote too few sentences")
    parser.add_argument("--batch-size", type=positive_number, default=8, metavar="N", help="images at a time (8)")
    parser.add_argument("--max-new-tokens", type=positive_number, default=160, metavar="N", help="per reply (160)")
    parser.add_argument("--revision", metavar="COMMIT", help="of a model from the hub")
    parser.add_argument("--seed", type=seed_number, default=0, help="of the templates")
    parser.add_argument("--output", type=Path, metavar="FILE", help=f"default: DIR/{FACTS_FILE}")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    return parser


if __name__ == "__main__":
    run_tool(main)
