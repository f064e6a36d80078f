"""Judge the ranked answers of a dataset once.

    python tools/score_mle.py --dataset data/ad_pl --judge openai --model gpt-4o
    python tools/score_mle.py --dataset data/synthetic --judge rule

The API key comes from OPENAI_API_KEY. Nothing that was paid is asked again: give the same command to go on.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean, pstdev, quantiles

from rich.console import Console
from rich.progress import track
from rich.table import Table

from sage_trl.command_line import positive_number, run_tool
from sage_trl.data.dataset import AdPlDirectory, read_ad_pl
from sage_trl.errors import SageError
from sage_trl.judge.arguments import CACHE_FILE, JUDGE_MODEL, add_judgement_options, judgement_options
from sage_trl.judge.scorer import SCORES_FILE, merge_scores, open_judge, score_answers
from sage_trl.judge.summary import CRITERIA, ScoreSummary, summarise_scores
from sage_trl.llm_client.arguments import add_service_options, service_options
from sage_trl.records import Inspection, JudgeScore, iterate_records
from sage_trl.storage import write_jsonl


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, type=Path, metavar="DIR", help="dataset directory")
    parser.add_argument("--judge", default="rule", help="openai: any compatible server; rule: from ground truth")
    parser.add_argument("--output", type=Path, metavar="FILE", help=f"file to write; default DATASET/{SCORES_FILE}")
    parser.add_argument("--split", nargs="+", help="splits to score, keeping the scores of the others; default all")
    parser.add_argument("--limit", type=positive_number, metavar="N", help="the first N groups only")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    model = parser.add_argument_group("with --judge openai")
    model.add_argument("--model", default=JUDGE_MODEL, metavar="NAME", help=f"default {JUDGE_MODEL}")
    model.add_argument("--dry-run", action="store_true", help="show what it would cost, and send nothing")
    model.add_argument("--report", type=Path, metavar="FILE", help="HTML report, JSON beside it; adds 20 canaries")
    model.add_argument("--human-scores", type=Path, metavar="CSV", help="human scores to compare with in the report")
    add_judgement_options(parser, "judgements, with --judge openai")
    add_service_options(parser, "server, limits and money, with --judge openai", f"DATASET/{CACHE_FILE}")
    return parser.parse_args()


def _tables(summary: ScoreSummary) -> Iterator[Table]:
    ranks = Table("rank", *CRITERIA, title="scores, mean ± standard deviation")
    for rank, criteria in summary.criteria.items():
        ranks.add_row(str(rank + 1), *(f"{mean:.2f} ± {spread:.2f}" for mean, spread in criteria.values()))
    yield ranks
    gaps = Table("pairs", "number", "mean", "std", "5%", "50%", "95%", "inverted", title="dH in nats (eq. 4-5)")
    for kind, values in summary.delta_entropy.items():
        if len(values) < 2:
            continue
        cuts = quantiles(values, n=20)
        shown = (fmean(values), pstdev(values), cuts[0], cuts[9], cuts[18])
        gaps.add_row(kind, str(len(values)), *(f"{value:.4f}" for value in shown), str(summary.inverted[kind]))
    yield gaps


def main() -> int:
    arguments = _parse()
    if arguments.judge not in ("openai", "rule"):
        raise SageError(f"judge {arguments.judge!r} is unknown\n  remedy: use one of openai, rule")
    ad_pl = read_ad_pl(arguments.dataset)
    inspections = ad_pl.select(splits=arguments.split)[: arguments.limit]
    output = arguments.output or arguments.dataset / SCORES_FILE
    merges = arguments.split is not None or arguments.limit is not None
    if arguments.judge == "openai":
        return _score_with_model(arguments, ad_pl, inspections, output, merges)
    return _score_by_rule(arguments, ad_pl, inspections, output, merges)


def _score_with_model(
    arguments: argparse.Namespace, ad_pl: AdPlDirectory, inspections: Sequence[Inspection], output: Path, merges: bool
) -> int:
    # Loading the openai package takes most of a second, which the rule judge need not wait for.
    from sage_trl.judge.scoring_run import ScoringOptions, score_with_model  # noqa: PLC0415

    service = service_options(arguments, arguments.model, arguments.dataset / CACHE_FILE)
    options = ScoringOptions(
        **{**vars(service), "batch": arguments.batch},
        output=output,
        judgements=judgement_options(arguments),
        report=arguments.report,
        human_scores=arguments.human_scores,
        merges=merges,
    )
    code = score_with_model(ad_pl, inspections, options)
    if code == 0 and not arguments.dry_run:
        _show_summary(summarise_scores(score for _, score in iterate_records(JudgeScore, output)), arguments.quiet)
    return code


def _score_by_rule(
    arguments: argparse.Namespace, ad_pl: AdPlDirectory, inspections: Sequence[Inspection], output: Path, merges: bool
) -> int:
    judge = open_judge("rule")
    progress = track(inspections, "score", console=Console(stderr=True), disable=arguments.quiet)
    scores = list(score_answers(judge, progress))
    asked = {inspection.id for inspection in inspections}
    kept = merge_scores(output, scores, ad_pl.inspections, judge.name, asked) if merges else scores
    write_jsonl(output, (score.model_dump(mode="json") for score in kept))
    _show_summary(summarise_scores(scores), arguments.quiet)
    kept_too = f", {len(kept) - len(scores)} of other splits kept" if len(kept) > len(scores) else ""
    said = f"written: {output} ({len(scores)} scores by {judge.name}{kept_too})"
    Console(quiet=arguments.quiet).print(said, soft_wrap=True)
    return 0


def _show_summary(summary: ScoreSummary, quiet: bool) -> None:
    console = Console(quiet=quiet)
    for table in _tables(summary):
        console.print(table)
    shares = ", ".join(
        f"{rank + 1}-{rank + 2} {count / summary.questions:.1%}" for rank, count in sorted(summary.min_ranks.items())
    )
    console.print(f"minimum pairs by rank: {shares}", soft_wrap=True)
    console.print(f"dH_max < dH_min in {summary.max_below_min} of {summary.questions} questions", soft_wrap=True)


if __name__ == "__main__":
    run_tool(main)
