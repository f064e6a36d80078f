"""Build an AD-PL dataset from a source: python tools/build_dataset.py --source synthetic --output data/synthetic."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from sage_trl.command_line import run_tool, seed_number
from sage_trl.data.authoring import Author, author_by_rule
from sage_trl.data.building import LevelCount, build_dataset
from sage_trl.data.pairing import PAIRINGS
from sage_trl.data.sources import SOURCES, SourceOptions, open_source
from sage_trl.data.statistics_report import report_statistics
from sage_trl.errors import INCOMPLETE, RecipeError
from sage_trl.llm_client.arguments import add_service_options, service_options
from sage_trl.publishing.dataset_command import add_sharing_options, fetch_from_hub, push_to_hub


def _group_count(text: str) -> tuple[str, int]:
    split, _, count = text.partition("=")
    if not split or not (count.isascii() and count.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not SPLIT=NUMBER, such as train=600")
    return split, int(count)


def _split_share(text: str) -> tuple[str, float]:
    split, _, share = text.partition("=")
    try:
        return split, float(share)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not SPLIT=SHARE, such as train=0.8") from None


def _column(text: str) -> tuple[str, str]:
    ours, _, theirs = text.partition("=")
    if not theirs:
        raise argparse.ArgumentTypeError(f"{text!r} is not OURS=THEIRS, such as label=defect")
    return ours, theirs


class _NamedValues(argparse.Action):
    """NAME=VALUE, each name once."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *_: Any) -> None:
        named = dict(values)
        if len(named) < len(values):
            parser.error(f"argument {self.option_strings[0]}: a name occurs twice: {', '.join(map(str, values))}")
        setattr(namespace, self.dest, named)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    task = parser.add_mutually_exclusive_group()
    task.add_argument("--source", help=f"one of {', '.join(sorted(SOURCES))}")
    task.add_argument("--stats", type=Path, metavar="DIR", help="count a dataset; the plot goes to --output or DIR")
    task.add_argument("--from-hub", metavar="NAME", help="a dataset that --push-to-hub published")
    parser.add_argument(
        "--root", type=Path, help="directory of the source's files; for datasets, also a file or a name on the hub"
    )
    parser.add_argument("--output", type=Path, help="dataset directory to write, or to publish")
    parser.add_argument("--seed", type=seed_number, default=0, help="of all that is drawn, default 0")
    parser.add_argument(
        "--groups",
        nargs="+",
        type=_group_count,
        action=_NamedValues,
        default={},
        metavar="SPLIT=NUMBER",
        help="parts per split (synthetic), or at most this many (other sources); 0 leaves a split out",
    )
    parser.add_argument("--pairing", choices=PAIRINGS, help="how a reference is picked; the source's own by default")
    parser.add_argument(
        "--split-shares",
        nargs="+",
        type=_split_share,
        action=_NamedValues,
        metavar="SPLIT=SHARE",
        help="share of each split where the source does not say, such as train=0.8 test=0.2",
    )
    parser.add_argument("--split-file", default="2cls_highshot", help="visa: name of the file in split_csv")
    parser.add_argument("--category", help="labelme, folder, datasets: what the part is called")
    parser.add_argument("--licence", help="licence of the pictures, where the source does not state it")
    parser.add_argument("--language", choices=("en", "zh"), default="en", help="ad_pl, manta: of the questions")
    parser.add_argument("--views", choices=("whole", "each"), default="whole", help="manta: montages, or their views")
    parser.add_argument(
        "--columns",
        nargs="+",
        type=_column,
        action=_NamedValues,
        default={},
        metavar="OURS=THEIRS",
        help="datasets: names of its columns",
    )
    parser.add_argument("--config", metavar="NAME", help="datasets: which configuration, where it has several")
    parser.add_argument("--copy-images", action="store_true", help="copy image files instead of naming them in place")
    parser.add_argument("--image-size", type=int, help="side of the pictures or crops in pixels")
    parser.add_argument(
        "--defective-share",
        type=float,
        default=0.6,
        help="share of parts with a defect, but of mvtec, mpdd and sources with their own questions",
    )
    parser.add_argument("--crops-per-defect", type=int, default=2, help="deep_pcb: shifted crops of each defect")
    parser.add_argument("--force", action="store_true", help="replace rows and images of the dataset at --output")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    parser.add_argument(
        "--author", choices=("rule", "openai"), default="rule", help="of the questions, where the source has none"
    )
    parser.add_argument("--model", default="gpt-4o", metavar="NAME", help="of --author openai; default gpt-4o")
    add_service_options(parser, "with --author openai", "OUTPUT.authoring.sqlite")
    add_sharing_options(parser)
    arguments = parser.parse_args()
    if not (arguments.source or arguments.stats or arguments.from_hub or arguments.push_to_hub):
        parser.error("one of the arguments --source --stats --from-hub --push-to-hub is required")
    if arguments.output is None and (arguments.stats is None or arguments.push_to_hub):
        parser.error("the following arguments are required: --output")
    return arguments


def _table(counts: list[LevelCount]) -> Table:
    table = Table("split", "level", "groups", "defective", "questions", "yes")
    for row in counts:
        yes = f"{row.yes / row.verdicts:.1%}" if row.verdicts else "-"
        table.add_row(row.split, row.level, str(row.groups), str(row.defective), str(row.questions), yes)
    return table


def main() -> int:
    arguments = _parse()
    if arguments.dry_run:
        _refuse_meaningless_dry_run(arguments)
    console = Console(quiet=arguments.quiet)
    if arguments.stats is not None:
        report_statistics(arguments.stats, arguments.output, console)
    code = 0 if arguments.source is None else _build(arguments, console)
    if code or (arguments.dry_run and arguments.source is not None):
        return code
    if arguments.from_hub is not None:
        fetch_from_hub(arguments, console)
    if arguments.push_to_hub is not None:
        push_to_hub(arguments, console)
    return 0


def _refuse_meaningless_dry_run(arguments: argparse.Namespace) -> None:
    """Refuse it where something would be built, downloaded or counted all the same."""
    shows_cost = arguments.source is not None and arguments.author == "openai"
    others = (arguments.source, arguments.stats, arguments.from_hub)
    if not (shows_cost or (arguments.push_to_hub is not None and others == (None, None, None))):
        remedy = "leave it out, or give --push-to-hub alone, or --source with --author openai"
        raise RecipeError(f"--dry-run shows what --push-to-hub sends or what --author openai costs\n  remedy: {remedy}")


def _build(arguments: argparse.Namespace, console: Console) -> int:
    if arguments.author == "rule":
        _build_with(author_by_rule, arguments, console)
        return 0
    # The client takes most of a second to load, which the rule author need not wait for.
    from sage_trl.data.authoring.model_author import DryRunError, ModelAuthor  # noqa: PLC0415

    cache = arguments.output.with_name(f"{arguments.output.name}.authoring.sqlite")
    author = ModelAuthor(service_options(arguments, arguments.model, cache))
    try:
        _build_with(author, arguments, console)
    except DryRunError as end:
        console.print(str(end), soft_wrap=True)
        return 0
    author.report(console)
    return INCOMPLETE if author.left_out else 0


def _build_with(author: Author, arguments: argparse.Namespace, console: Console) -> None:
    options = SourceOptions(
        root=arguments.root,
        seed=arguments.seed,
        groups=arguments.groups,
        image_size=arguments.image_size,
        defective_share=arguments.defective_share,
        crops_per_defect=arguments.crops_per_defect,
        pairing=arguments.pairing,
        split_shares=arguments.split_shares,
        split_file=arguments.split_file,
        category=arguments.category,
        licence=arguments.licence,
        language=arguments.language,
        views=arguments.views,
        columns=arguments.columns,
        config=arguments.config,
    )
    source = open_source(arguments.source)
    if arguments.quiet and arguments.source == "datasets":
        from datasets import disable_progress_bars  # noqa: PLC0415

        disable_progress_bars()  # of files being read
    columns = (SpinnerColumn(), TextColumn("{task.completed} parts"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True, quiet=arguments.quiet)) as progress:
        task = progress.add_task("build", total=None)
        info, counts, left_out = build_dataset(
            source,
            options,
            arguments.output,
            force=arguments.force,
            copy_images=arguments.copy_images,
            author=author,
            progress=lambda done: progress.update(task, completed=done),
        )
    console.print(_table(counts))
    console.print(f"groups: {', '.join(f'{split} {number}' for split, number in info.splits.items())}", soft_wrap=True)
    console.print(f"licence: {info.licence}", soft_wrap=True)
    if left_out:
        told = f"left out, since rows or images have changed: {', '.join(left_out)}; the other files are kept"
        console.print(told, soft_wrap=True)
    console.print(f"written: {arguments.output}", soft_wrap=True)


if __name__ == "__main__":
    run_tool(main)
