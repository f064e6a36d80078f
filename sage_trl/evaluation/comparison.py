"""A paired test between two models on the same questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sage_trl.errors import DataError
from sage_trl.evaluation.counts import AskedGroup, groups_of, without_doubles
from sage_trl.evaluation.predictions import Prediction
from sage_trl.records import Record

DRAWS = 10_000
_EXACT_UP_TO = 12


class Comparison(Record):
    """How two models differ on the questions that both answered.

    `difference` is the accuracy of the first minus that of the second; `only_first` and `only_second` count the
    questions that only one of them got right; `p_value` is two-sided.
    """

    questions: int
    units: int
    difference: float
    only_first: int
    only_second: int
    p_value: float


def compare_models(
    first: Sequence[Prediction],
    second: Sequence[Prediction],
    groups: Mapping[str, AskedGroup] | None = None,
    seed: int = 0,
) -> Comparison:
    """Paired permutation test of equal accuracy, by physical unit.

    If the models are equally good, each unit's difference in right answers is as likely to have the other sign. All
    sign patterns are tried for up to 12 units that differ, 10,000 random ones for more. With one question a unit and
    few units this is McNemar's exact test.

    Args:
        first: graded predictions of one model in one setting.
        second: those of the other.
        groups: names each group's unit; by default each group is one.
        seed: of the random sign patterns.

    Raises:
        DataError: no graded question was answered by both, or the true answers differ.
    """
    ours, theirs = (
        {(row.group_id, row.question_id): row for row in without_doubles(rows) if row.correct is not None}
        for rows in (first, second)
    )
    both = sorted(ours.keys() & theirs.keys())
    if not both or any(ours[name].truth != theirs[name].truth for name in both):
        raise DataError(
            "comparison: the two models share no graded question, or were graded by different true answers\n"
            "  remedy: evaluate both on the same dataset, split and setting"
        )
    known = groups_of(first) if groups is None else groups
    gains: dict[str, int] = {}
    signs = [int(ours[name].correct is True) - int(theirs[name].correct is True) for name in both]
    for (group, _), sign in zip(both, signs, strict=True):
        unit = known[group].unit
        gains[unit] = gains.get(unit, 0) + sign
    return Comparison(
        questions=len(both),
        units=len(gains),
        difference=sum(signs) / len(both),
        only_first=signs.count(1),
        only_second=signs.count(-1),
        p_value=sign_flip_p_value([gains[unit] for unit in sorted(gains)], seed),
    )


def sign_flip_p_value(gains: Sequence[int], seed: int = 0, draws: int = DRAWS) -> float:
    """Two-sided chance of a sum at least as far from zero if each gain's sign were random.

    With random patterns the observed one counts as drawn, so the value is never 0.
    """
    moving = np.array([gain for gain in gains if gain], dtype=np.int64)
    observed = abs(int(moving.sum()))
    if len(moving) <= _EXACT_UP_TO:
        patterns = (np.arange(2 ** len(moving))[:, None] >> np.arange(len(moving))) & 1
        return float(np.mean(np.abs((1 - 2 * patterns) @ moving) >= observed))
    generator = np.random.default_rng(seed)
    extreme = sum(
        int(abs(int((moving * generator.choice((-1, 1), size=len(moving))).sum())) >= observed) for _ in range(draws)
    )
    return (extreme + 1) / (draws + 1)
