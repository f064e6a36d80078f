"""Answer selection (eq. 5): which pairs of ranked answers E-DPO learns from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

from sage_trl.preferences.entropy import EntropyKind, entropies_of
from sage_trl.records import PairKind

PairChoice = Literal["both", "min", "max"]

# Entropies are float64 numbers of order one: gaps closer than this are equal and differ by rounding alone.
TIE_TOLERANCE = 1e-12


class SelectedPair(NamedTuple):
    """Winner and loser by 0-based rank; `delta_entropy` = abs(H_w - H_l) in nats."""

    winner: int
    loser: int
    delta_entropy: float
    kind: PairKind


def select_preference_pairs(
    mle_scores: Sequence[float], pairs: PairChoice = "both", *, entropy: EntropyKind = "term"
) -> list[SelectedPair]:
    """Pairs of one question (eq. 5), in rank order of the winner.

    `min` is the adjacent pair with the smallest entropy gap (ties: the higher-ranked pair), `max` is best against
    worst. With two answers both are the same pair, which is returned once, as `max` unless `min` alone is asked for.
    The better rank always wins; see `is_inverted` for pairs that the judge orders the other way.

    Args:
        mle_scores: MLE scores of the ranked answers, best rank first.
        pairs: `both`, `min` or `max`.
        entropy: see `answer_entropies`.

    Returns:
        At most two pairs; none where a score is missing (NaN): an incomplete set is never filled in.
    """
    if pairs not in ("both", "min", "max"):
        raise ValueError(f"pairs {pairs!r} is unknown; use 'both', 'min' or 'max'")
    if len(mle_scores) < 2:
        raise ValueError(f"{len(mle_scores)} answer scores; a pair needs at least two")
    if any(math.isnan(score) for score in mle_scores):
        return []
    entropies = entropies_of(mle_scores, entropy).tolist()
    last = len(entropies) - 1
    chosen: list[SelectedPair] = []
    if pairs == "min" or (pairs == "both" and last > 1):
        chosen.append(_smallest_adjacent_gap(entropies))
    if pairs in ("max", "both"):
        chosen.append(SelectedPair(0, last, abs(entropies[0] - entropies[last]), "max"))
    return sorted(chosen, key=lambda pair: (pair.winner, pair.loser))


def _smallest_adjacent_gap(entropies: list[float]) -> SelectedPair:
    gaps = [abs(better - worse) for better, worse in pairwise(entropies)]
    smallest = min(gaps)
    index = next(i for i, gap in enumerate(gaps) if gap <= smallest + TIE_TOLERANCE)
    return SelectedPair(index, index + 1, gaps[index], "min")


def is_inverted(mle_scores: Sequence[float], pair: SelectedPair) -> bool:
    """Whether the judge scores the loser above the winner."""
    return mle_scores[pair.winner] < mle_scores[pair.loser]
