"""Measure models on a dataset: accuracy, Acc-G and a judge's scores, with and without the reference image.

    python tools/evaluate.py --model runs/sfe runs/edpo --dataset data/ad_pl --setting zero_shot one_shot \
        --output runs/evaluation --judge rule

A run that was stopped goes on where it stopped when the same command is given again. The key for `--judge openai` and
`--model openai:NAME` comes from OPENAI_API_KEY.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from sage_trl.command_line import positive_number, run_tool, seed_number
from sage_trl.errors import INCOMPLETE, SageError
from sage_trl.evaluation.predictions import CONTROLS, MMAD_PROTOCOLS, SETTINGS, in_turns
from sage_trl.judge.arguments import CACHE_FILE, JUDGE_MODEL, add_judgement_options, judgement_options
from sage_trl.llm_client.arguments import SERVED, add_service_options, amount, service_options
from sage_trl.records import Turns

if TYPE_CHECKING:
    from sage_trl.llm_client.service import ServiceOptions


def main() -> int:
    """Parse, evaluate, print the table."""
    arguments = _parser().parse_args()
    # Imported only now: loading torch takes seconds, and --help or a mistyped option needs none of it.
    from sage_trl.evaluation.options import EvaluationOptions  # noqa: PLC0415
    from sage_trl.evaluation.report import (  # noqa: PLC0415
        comparisons_table,
        count_notes,
        mmad_table,
        print_table,
        results_table,
    )
    from sage_trl.evaluation.results_files import COMPARISONS_FILE, METRICS_FILE, read_comparisons  # noqa: PLC0415
    from sage_trl.evaluation.run import run_evaluation  # noqa: PLC0415

    results = run_evaluation(
        EvaluationOptions(
            models=tuple(arguments.model),
            dataset=arguments.dataset,
            settings=tuple(in_turns(setting, turns) for turns in arguments.turns for setting in arguments.setting),
            output=arguments.output,
            splits=tuple(arguments.split),
            controls=tuple(arguments.control or [None]),
            limit=arguments.limit,
            batch_size=arguments.batch_size,
            max_new_tokens=arguments.max_new_tokens,
            judge=arguments.judge,
            service=_service(arguments),
            judge_service=_judge_service(arguments),
            judgements=judgement_options(arguments),
            dry_run=arguments.dry_run,
            sbert=arguments.sbert,
            facts=arguments.facts,
            use_facts=not arguments.no_facts,
            facts_as_text=arguments.facts_as_text,
            seed=arguments.seed,
            evidence=arguments.evidence,
            quiet=arguments.quiet,
            mmad_protocols=tuple(arguments.mmad_protocol),
        )
    )
    if not results:
        return 0
    if not arguments.quiet:
        print_table(results_table(results))
        for note in count_notes(results):
            print(note)
        mmad = mmad_table(results)
        if mmad is not None:
            print_table(mmad)
        if len(results) > 1:
            compared = read_comparisons(arguments.output / COMPARISONS_FILE)
            print_table(comparisons_table(one for one in compared if {one["first"], one["second"]} <= {*results}))
        print(arguments.output / METRICS_FILE)
    figures = [figures for by_setting in results.values() for figures in by_setting.values()]
    return INCOMPLETE if any(one["unanswered"] or one["mle_unscored"] for one in figures) else 0


def _has_served(arguments: argparse.Namespace) -> bool:
    return any(model.startswith(SERVED) for model in arguments.model)


def _service(arguments: argparse.Namespace) -> ServiceOptions | None:
    """Of models under test, each of which puts its own name in."""
    served = [model.removeprefix(SERVED) for model in arguments.model if model.startswith(SERVED)]
    if served:
        return service_options(arguments, served[0], arguments.dataset / CACHE_FILE)
    if arguments.dry_run and arguments.judge != "openai":
        raise SageError(
            f"--dry-run without --judge openai or --model {SERVED}NAME\n"
            "  remedy: leave it out: nothing else costs money"
        )
    return None


def _judge_service(arguments: argparse.Namespace) -> ServiceOptions | None:
    """Of the judge; `--price-input` and `--price-output` are its own only if no model under test is served."""
    if arguments.judge != "openai":
        return None
    service = service_options(arguments, arguments.judge_model, arguments.dataset / CACHE_FILE)
    prices = (arguments.judge_price_input, arguments.judge_price_output)
    if prices == (None, None) and not _has_served(arguments):
        prices = (arguments.price_input, arguments.price_output)
    return replace(
        service,
        base_url=arguments.judge_base_url or service.base_url,
        price_input=prices[0],
        price_output=prices[1],
        batch=arguments.batch,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model",
        nargs="+",
        required=True,
        metavar="MODEL",
        help=f"directory or hub id of a model of ours; hf:ID for any other, {SERVED}NAME for one behind a server "
        "(docs/models_under_test.md); results carry their names",
    )
    parser.add_argument("--dataset", type=Path, required=True, metavar="DIR", help="AD-PL directory")
    parser.add_argument(
        "--setting", nargs="+", choices=SETTINGS, required=True, help="one_shot shows the reference, zero_shot hides it"
    )
    parser.add_argument(
        "--turns",
        nargs="+",
        choices=get_args(Turns),
        default=["single"],
        help="conversation: a group's earlier questions and the model's own replies come before; default: single",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="predictions.jsonl, metrics.json")
    parser.add_argument("--split", nargs="+", default=["test"], metavar="NAME", help="default: test")
    parser.add_argument(
        "--limit", type=positive_number, metavar="GROUPS", help="the first so many groups of each split only"
    )
    parser.add_argument(
        "--batch-size", type=positive_number, default=64, metavar="N", help="questions per batch, default 64"
    )
    parser.add_argument("--max-new-tokens", type=positive_number, default=48, metavar="N", help="per reply, default 48")
    parser.add_argument("--facts", type=Path, metavar="FILE", help="facts.jsonl; default: the one in the dataset")
    parser.add_argument(
        "--judge",
        choices=["rule", "openai"],
        help="score the replies' type, place and logic, from ground truth (mle_rule) or by a language model (mle)",
    )
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
        "--evidence",
        action="store_true",
        help="evidence.jsonl: the patches that facts are compared with, and their attention",
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
    add_judgement_options(parser, "judgements, with --judge openai")
    judge = parser.add_argument_group("judge, with --judge openai")
    judge.add_argument("--judge-model", default=JUDGE_MODEL, metavar="NAME", help=f"default {JUDGE_MODEL}")
    judge.add_argument("--judge-base-url", metavar="URL", help="default: --base-url")
    judge.add_argument("--judge-price-input", type=amount, metavar="USD", help="default: --price-input, if no model")
    judge.add_argument("--judge-price-output", type=amount, metavar="USD", help="under test is served")
    title = f"server, limits and money, with --model {SERVED}NAME and --judge openai"
    add_service_options(parser, title, f"DATASET/{CACHE_FILE}")
    parser.add_argument("--dry-run", action="store_true", help="show what servers would cost, and do nothing")
    return parser


if __name__ == "__main__":
    run_tool(main)
