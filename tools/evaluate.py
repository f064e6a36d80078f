"""Measure models on a dataset: accuracy, Acc-G and the rule judge's scores, with and without the reference image.

    python tools/evaluate.py --model runs/sfe runs/edpo --dataset data/ad_pl --setting zero_shot one_shot \
        --output runs/evaluation --judge rule

A run that was stopped goes on where it stopped when the same command is given again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from sage_trl.command_line import run_tool, seed_number
from sage_trl.evaluation.predictions import CONTROLS, MMAD_PROTOCOLS, SETTINGS


def main() -> int:
    """Parse, evaluate, print the table."""
    arguments = _parser().parse_args()
    # Imported only now: loading torch takes seconds, and --help or a mistyped option needs none of it.
    from sage_trl.evaluation.options import EvaluationOptions  # noqa: PLC0415
    from sage_trl.evaluation.report import (  # noqa: PLC0415
        COMPARISONS_FILE,
        METRICS_FILE,
        comparisons_table,
        mmad_table,
        print_table,
        results_table,
    )
    from sage_trl.evaluation.run import run_evaluation  # noqa: PLC0415
    from sage_trl.storage import read_json  # noqa: PLC0415

    results = run_evaluation(
        EvaluationOptions(
            models=tuple(arguments.model),
            dataset=arguments.dataset,
            settings=tuple(arguments.setting),
            output=arguments.output,
            splits=tuple(arguments.split),
            controls=tuple(arguments.control or [None]),
            limit=arguments.limit,
            batch_size=arguments.batch_size,
            max_new_tokens=arguments.max_new_tokens,
            judge=arguments.judge,
            sbert=arguments.sbert,
            facts=arguments.facts,
            use_facts=not arguments.no_facts,
            facts_as_text=arguments.facts_as_text,
            seed=arguments.seed,
            quiet=arguments.quiet,
            mmad_protocols=tuple(arguments.mmad_protocol),
        )
    )
    if not arguments.quiet:
        print_table(results_table(results))
        mmad = mmad_table(results)
        if mmad is not None:
            print_table(mmad)
        if len(results) > 1:
            print_table(comparisons_table(read_json(arguments.output / COMPARISONS_FILE)))
        print(arguments.output / METRICS_FILE)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", required=True, metavar="DIR", help="models; results carry their names")
    parser.add_argument("--dataset", type=Path, required=True, metavar="DIR", help="AD-PL directory")
    parser.add_argument(
        "--setting", nargs="+", choices=SETTINGS, required=True, help="one_shot shows the reference, zero_shot hides it"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="predictions.jsonl, metrics.json")
    parser.add_argument("--split", nargs="+", default=["test"], metavar="NAME", help="default: test")
    parser.add_argument(
        "--limit", type=_positive_integer, metavar="GROUPS", help="the first so many groups of each split only"
    )
    parser.add_argument(
        "--batch-size", type=_positive_integer, default=64, metavar="N", help="questions per batch, default 64"
    )
    parser.add_argument(
        "--max-new-tokens", type=_positive_integer, default=48, metavar="N", help="per reply, default 48"
    )
    parser.add_argument("--facts", type=Path, metavar="FILE", help="facts.jsonl; default: the one in the dataset")
    parser.add_argument("--judge", choices=["rule"], help="score the replies' type, place and logic (mle_rule)")
    parser.add_argument(
        "--sbert", metavar="MODEL", help="similarity to the best answers by this sentence-transformers model"
    )
    parser.add_argument(
        "--mmad-protocol",
        nargs="+",
        choices=MMAD_PROTOCOLS,
        default=MMAD_PROTOCOLS,
        help="how questions of MMAD are counted: without, or with, the faults of its published script; default: both",
    )
    parser.add_argument(
        "--seed", type=seed_number, default=0, help="of the shuffling controls and the intervals, default 0"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress and no table")
    inputs = parser.add_mutually_exclusive_group()
    inputs.add_argument("--control", nargs="+", choices=CONTROLS, help="replace an input by one that tells nothing")
    inputs.add_argument(
        "--no-facts", action="store_true", help="hide the facts from models that were trained with them"
    )
    inputs.add_argument(
        "--facts-as-text", action="store_true", help="put the facts into the prompt, however a model was trained"
    )
    return parser


def _positive_integer(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


if __name__ == "__main__":
    run_tool(main)
