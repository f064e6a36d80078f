"""Charts of a dataset's judge scores: their distribution by rank, and the entropy gaps of the pairs they give."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import chain

import numpy as np

from sage_trl.preferences.selection import SelectedPair, select_preference_pairs
from sage_trl.records import JudgeScore
from sage_trl.reporting.charts import COLOURS, Canvas, Chart

_BINS = 30


def score_charts(scores: Sequence[JudgeScore], name: str) -> list[Chart]:
    """Two charts of the scores of one dataset."""
    judges = ", ".join(sorted({score.judge for score in scores}))
    return [_distribution(scores, name, judges), *_gaps(scores, name)]


def _distribution(scores: Sequence[JudgeScore], name: str, judges: str) -> Chart:
    by_rank: defaultdict[int, Counter[float]] = defaultdict(Counter)
    for score in scores:
        by_rank[score.answer_index][round(score.mle, 2)] += 1
    title = f"Scores by rank: {name}"
    with Canvas(title) as canvas:
        for number, (rank, counts) in enumerate(sorted(by_rank.items())):
            values = sorted(counts)
            shares = [100 * counts[value] / counts.total() for value in values]
            colour = COLOURS[number % len(COLOURS)]
            canvas.axes.plot(values, shares, marker="o", markersize=3.5, color=colour, label=f"answer {rank + 1}")
        canvas.axes.set(xlabel="MLE score (eq. 3)", ylabel="share of the rank's answers, %", xlim=(0.9, 5.1))
        canvas.legend()
    return Chart(title, canvas.svg, f"{len(scores):,} answers, judged by {judges}.")


def _gaps(scores: Sequence[JudgeScore], name: str) -> list[Chart]:
    by_question: defaultdict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    for score in scores:
        by_question[score.group_id, score.question_id][score.answer_index] = score.mle
    # Ranks without a score at the end of a question cannot be seen from here; a gap in the middle can.
    whole = [found for found in by_question.values() if len(found) > 1 and max(found) == len(found) - 1]
    pairs = [select_preference_pairs([found[rank] for rank in sorted(found)]) for found in whole]
    if not pairs:
        return []
    gaps = {kind: [pair.delta_entropy for pair in chain(*pairs) if pair.kind == kind] for kind in ("min", "max")}
    gaps = {kind: found for kind, found in gaps.items() if found}
    title = f"Entropy gaps of the pairs: {name}"
    edges = np.linspace(0.0, max(chain(*gaps.values())) or 1.0, _BINS + 1).tolist()
    with Canvas(title) as canvas:
        for number, (kind, found) in enumerate(gaps.items()):
            weights = [100 / len(found)] * len(found)
            label, colour = f"{kind} pairs", COLOURS[number]
            canvas.axes.hist(found, edges, weights=weights, histtype="stepfilled", alpha=0.25, color=colour)
            canvas.axes.hist(found, edges, weights=weights, histtype="step", linewidth=1.6, color=colour, label=label)
        canvas.axes.set(xlabel="entropy gap ΔH, nats (eq. 4-5, term)", ylabel="share of pairs, %", xlim=(0, None))
        canvas.legend()
    return [Chart(title, canvas.svg, _gap_caption(pairs))]


def _gap_caption(pairs: Sequence[Sequence[SelectedPair]]) -> str:
    both = [{pair.kind: pair.delta_entropy for pair in found} for found in pairs if len(found) == 2]
    smaller = sum(gap["max"] < gap["min"] for gap in both)
    if not both:
        return f"{len(pairs):,} questions with one pair each."
    share = 100 * smaller / len(both)
    return (
        f"{len(both):,} questions with both pairs. In {smaller:,} of them ({share:.1f}%) best against worst has the "
        "smaller gap, for the entropy term is not monotone in the score."
    )
