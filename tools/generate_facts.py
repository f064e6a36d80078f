"""Write the fact sentences of a dataset's test images, by the backbone itself, a served model, or from templates.

    python tools/generate_facts.py --dataset data/ad_pl --model OpenGVLab/InternVL3-1B-hf --num-facts 10
    python tools/generate_facts.py --dataset data/ad_pl --model openai:gpt-4o --max-cost 20

A run that was stopped goes on where it stopped when the same command is given again. Images with too few facts are
listed in facts.short.jsonl; exit code 3 if some have none.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sage_trl.command_line import positive_number, run_tool, seed_number
from sage_trl.data.dataset import read_ad_pl
from sage_trl.data.fact_sets import FACTS_FILE
from sage_trl.errors import SageError
from sage_trl.facts.generation import FactReport, generate_facts
from sage_trl.facts.opening import (
    BACKBONE_TOKENS,
    MODEL_COUNT,
    SERVED_TOKENS,
    TEMPLATE,
    TEMPLATE_COUNT,
    WriterOptions,
    open_fact_writer,
)
from sage_trl.llm_client.arguments import SERVED, add_service_options, service_options

if TYPE_CHECKING:
    from sage_trl.llm_client.service import ServiceOptions

IN_QUARANTINE = 3


def main() -> int:
    """Parse, write, say what is lacking."""
    arguments = _parser().parse_args()
    output = arguments.output or arguments.dataset / FACTS_FILE
    ad_pl = read_ad_pl(arguments.dataset)
    service = _service(arguments, output)
    if service is None and arguments.dry_run:
        raise SageError(f"--dry-run is of --model {SERVED}NAME\n  remedy: leave it out: nothing else costs money")
    if arguments.quiet and service is None and arguments.model != TEMPLATE:
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
            service=service,
        )
    )
    if service is not None:
        from sage_trl.facts.language_model import agree_on_cost  # noqa: PLC0415

        console = Console(stderr=True, quiet=arguments.quiet)
        if not agree_on_cost(ad_pl, service, writer.count, arguments.max_new_tokens or SERVED_TOKENS, console):
            return 0
    columns = (TextColumn("facts"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=arguments.quiet) as progress:
        task = progress.add_task("facts", total=None)
        report = generate_facts(
            ad_pl, writer, output, lambda done, total: progress.update(task, completed=done, total=total)
        )
    _print(report, writer.count, output, Console(quiet=arguments.quiet, soft_wrap=True, highlight=False))
    return IN_QUARANTINE if report.without else 0


def _service(arguments: argparse.Namespace, output: Path) -> ServiceOptions | None:
    if not arguments.model.startswith(SERVED):
        return None
    return service_options(arguments, arguments.model.removeprefix(SERVED), output.with_suffix(".sqlite"))


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
        help=f"directory or hub id; {SERVED}NAME: of a server; {TEMPLATE}: by category, blind to the label",
    )
    parser.add_argument(
        "--num-facts",
        type=positive_number,
        metavar="N",
        help=f"sentences per image ({MODEL_COUNT}; {TEMPLATE}: {TEMPLATE_COUNT})",
    )
    parser.add_argument("--fill", choices=[TEMPLATE], help="add templates where a model wrote too few sentences")
    parser.add_argument("--batch-size", type=positive_number, default=8, metavar="N", help="images at a time (8)")
    parser.add_argument(
        "--max-new-tokens",
        type=positive_number,
        metavar="N",
        help=f"per reply ({BACKBONE_TOKENS}; {SERVED}NAME: {SERVED_TOKENS})",
    )
    parser.add_argument("--revision", metavar="COMMIT", help="of a model from the hub")
    parser.add_argument("--seed", type=seed_number, default=0, help="of the templates")
    parser.add_argument("--output", type=Path, metavar="FILE", help=f"default: DIR/{FACTS_FILE}")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    add_service_options(parser, f"with --model {SERVED}NAME", "OUTPUT with the ending .sqlite")
    parser.add_argument("--dry-run", action="store_true", help=f"{SERVED}NAME: show what it would cost, send nothing")
    return parser


if __name__ == "__main__":
    run_tool(main)
