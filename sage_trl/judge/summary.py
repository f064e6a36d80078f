"""What a score file holds: scores per rank, the pairs eq. 5 chooses from them, and their entropy gaps."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import fmean, pstdev

from sage_trl.preferences.selection import is_inverted, select_preference_pairs
from sage_trl.records import JudgeScore

CRITERIA = ("type", "location", "logic", "mle")


@dataclass
class ScoreSummary:
    """Numbers over all questions of a score file.

    Attributes:
        criteria: rank (0-based) -> criterion -> (mean, standard deviation).
        delta_entropy: pair kind -> dH of every pair of that kind, nats.
        min_ranks: winner's rank (0-based) -> number of minimum pairs.
        questions: number of questions.
        max_below_min: questions with dH_max < dH_min.
        inverted: pair kind -> pairs whose loser has the higher score.
    """

    criteria: dict[int, dict[str, tuple[float, float]]] = field(default_factory=dict)
    delta_entropy: dict[str, list[float]] = field(default_factory=lambda: {"min": [], "max": []})
    min_ranks: Counter[int] = field(default_factory=Counter)
    questions: int = 0
    max_below_min: int = 0
    inverted: Counter[str] = field(default_factory=Counter)


def summarise_scores(scores: Iterable[JudgeScore]) -> ScoreSummary:
    """Summarise complete scores."""
    by_rank: defaultdict[int, list[JudgeScore]] = defaultdict(list)
    by_question: defaultdict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    for score in scores:
        by_rank[score.answer_index].append(score)
        by_question[score.group_id, score.question_id][score.answer_index] = score.mle
    summary = ScoreSummary(questions=len(by_question))
    for rank, rows in sorted(by_rank.items()):
        values = {name: [getattr(row, name) for row in rows] for name in CRITERIA}
        summary.criteria[rank] = {name: (fmean(value), pstdev(value)) for name, value in values.items()}
    for answers in by_question.values():
        _add_question([answers[index] for index in sorted(answers)], summary)
    return summary


def _add_question(mle_scores: list[float], summary: ScoreSummary) -> None:
    pairs = {pair.kind: pair for pair in select_preference_pairs(mle_scores, "both")}
    for kind, pair in pairs.items():
        summary.delta_entropy[kind].append(pair.delta_entropy)
        summary.inverted[kind] += is_inverted(mle_scores, pair)
    if "min" in pairs:
        summary.min_ranks[pairs["min"].winner] += 1
        summary.max_below_min += pairs["max"].delta_entropy < pairs["min"].delta_entropy
