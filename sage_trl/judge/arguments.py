"""The command-line options of how answers are put to a judge that is a language model. Imports no client."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from sage_trl.command_line import positive_number

if TYPE_CHECKING:
    from sage_trl.judge.model_judge import JudgementOptions

CACHE_FILE = "judge.sqlite"
JUDGE_MODEL = "gpt-4o"
JUDGEMENT_TOKENS = 400


def add_judgement_options(parser: argparse.ArgumentParser, title: str) -> None:
    """Add, under a title, what decides a judgement beside the judge's model, and whether to use the Batch API."""
    group = parser.add_argument_group(title)
    group.add_argument("--images", action="store_true", help="show the judge both images")
    group.add_argument("--best-answer", action="store_true", help="show the judge the best-ranked answer")
    group.add_argument("--repeats", type=positive_number, default=1, metavar="N", help="judge N times; the mean counts")
    group.add_argument(
        "--judgement-tokens",
        type=positive_number,
        default=JUDGEMENT_TOKENS,
        metavar="N",
        help=f"longest judgement, hidden thoughts included; default {JUDGEMENT_TOKENS}",
    )
    group.add_argument("--batch", action="store_true", help="judge through the Batch API: half the price, up to a day")


def judgement_options(arguments: argparse.Namespace) -> JudgementOptions:
    """What `add_judgement_options` read, but for `--batch`, which is the service's."""
    from sage_trl.judge.model_judge import JudgementOptions  # noqa: PLC0415

    return JudgementOptions(
        images=arguments.images,
        shows_best=arguments.best_answer,
        repeats=arguments.repeats,
        max_tokens=arguments.judgement_tokens,
    )
