"""Judge the ranked answers of a dataset once: python tools/score_mle.py --dataset data/synthetic --judge rule."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean, pstdev, quantiles

from rich.console import Console
from rich.progress import track
from rich.table import Table

from sage_trl.command_line import run_tool
from sage_trl.data.dataset import read_ad_pl
from sage_trl.judge.scorer import SCORES_FILE, merge_scores, open_judge, score_answers
from sage_trl.judge.summary import CRITERIA, ScoreSummary, summarise_scores
from sage_trl.storage import write_jsonl


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", required=True, type=Path, help="dataset directory")
    parser.add_argument("--judge", default="rule", help="rule: from ground truth; openai comes later")
    parser.add_argument("--output", type=Path, help=f"file to write; default DATASET/{SCORES_FILE}")
    parser.add_argument("--split", nargs="+", help="splits to score, keeping the scores of the others; default all")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
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
    judge = open_judge(arguments.judge)
    ad_pl = read_ad_pl(arguments.dataset)
    inspections = ad_pl.select(splits=arguments.split)
    output = arguments.output or arguments.dataset / SCORES_FILE
    progress = track(inspections, "score", console=Console(stderr=True), disable=arguments.quiet)
    scores = list(score_answers(judge, progress))
    kept = scores if arguments.split is None else merge_scores(output, scores, ad_pl.inspections)
    write_jsonl(output, (score.model_dump(mode="json") for score in kept))
    summary = summarise_scores(scores)
    console = Console(quiet=arguments.quiet)
    for table in _tables(summary):
        console.print(table)
    shares = ", ".join(
        f"{rank + 1}-{rank + 2} {count / summary.questions:.1%}" for rank, count in sorted(summary.min_ranks.items())
    )
    console.print(f"minimum pairs by rank: {shares}", soft_wrap=True)
    console.print(f"dH_max < dH_min in {summary.max_below_min} of {summary.questions} questions", soft_wrap=True)
    kept_too = f", {len(kept) - len(scores)} of other splits kept" if len(kept) > len(scores) else ""
    console.print(f"written: {output} ({len(scores)} scores by {judge.name}{kept_too})", soft_wrap=True)
    return 0


if __name__ == "__main__":
    run_tool(main)
