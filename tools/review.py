"""Review a dataset in the browser: python tools/review.py --dataset data/ad_pl, then --apply data/ad_pl_reviewed.

Every action is appended to review.jsonl in the dataset and on disk before the page confirms it; ad_pl.jsonl is never
changed. --apply writes a new dataset: accepted questions with their changes, without the rejected ones.
"""

from __future__ import annotations

import argparse
import getpass
import webbrowser
from pathlib import Path

from rich.console import Console

from sage_trl.command_line import run_tool
from sage_trl.data.dataset import read_ad_pl
from sage_trl.errors import RecipeError
from sage_trl.review.applying import apply_review
from sage_trl.review.session import ReviewSession


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, type=Path, help="dataset directory")
    parser.add_argument("--reviewer", help="the name that each action gets; by default your login name")
    parser.add_argument("--split", nargs="+", help="review these splits only")
    parser.add_argument("--port", type=_port, default=8765, help="of 127.0.0.1 (8765); 0 takes a free one")
    parser.add_argument("--open", action="store_true", help="open the page in the default browser")
    parser.add_argument("--apply", type=Path, metavar="OUTPUT", help="write the reviewed dataset there; serve nothing")
    parser.add_argument("--quiet", action="store_true", help="print nothing but the address and errors")
    return parser.parse_args()


def _port(text: str) -> int:
    value = int(text)
    if not 0 <= value < 65536:
        raise argparse.ArgumentTypeError(f"{text} is no port")
    return value


def _reviewer(given: str | None) -> str:
    try:
        name = getpass.getuser() if given is None else given
    except (KeyError, OSError):  # in a container, where the user may have none
        name = ""
    if not (name.strip() and name.isprintable()):
        raise RecipeError(f"--reviewer {name!r} is no name\n  remedy: say who reviews, such as --reviewer Ann")
    return name


def main() -> int:
    arguments = _parse()
    console = Console(quiet=arguments.quiet, highlight=False, soft_wrap=True)
    dataset = read_ad_pl(arguments.dataset)
    if arguments.apply is not None:
        applied = apply_review(dataset, arguments.apply)
        console.print(f"accepted {applied.accepted} ({applied.changed} of them changed), rejected {applied.rejected}")
        console.print(f"not reviewed, as they were: {applied.untouched}")
        _note_ignored(console, applied.ignored)
        console.print(f"written: {arguments.apply} ({applied.groups} groups); facts go along, scores do not")
        return 0
    try:
        from sage_trl.review.server import ReviewServer  # noqa: PLC0415
    except ModuleNotFoundError as error:
        remedy = 'pip install "sage-trl[review]"'
        raise RecipeError(f"the review page needs {error.name}\n  remedy: {remedy}") from None
    session = ReviewSession(dataset, _reviewer(arguments.reviewer), arguments.split)
    server = ReviewServer(session, arguments.port)
    _note_ignored(console, session.ignored)
    console.print(f"{len(session)} questions, reviewer {session.reviewer}; Ctrl-C ends the review")
    print(server.address, flush=True)
    if arguments.open:
        webbrowser.open(server.address)
    server.serve()
    return 0


def _note_ignored(console: Console, ignored: int) -> None:
    if ignored:
        console.print(f"note: {ignored} actions in review.jsonl belong to questions that changed since")


if __name__ == "__main__":
    run_tool(main)
