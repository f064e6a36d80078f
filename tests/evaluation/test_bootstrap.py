"""Intervals against formulas, and in a simulation in which the truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from sage_trl.evaluation.bootstrap import bootstrap_intervals
from sage_trl.evaluation.counts import COLUMNS, figures_of

QUESTIONS = 5


def counts_of(right: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Units of one group each, all of whose true verdicts are yes."""
    counts = np.zeros((len(right), COLUMNS))
    counts[:, 0], counts[:, 1] = right, asked
    counts[:, 4], counts[:, 5] = right == asked, 1
    return counts


def test_whole_units_are_drawn() -> None:
    right = np.tile([0, QUESTIONS], 20)
    counts = counts_of(right, np.full(40, QUESTIONS))

    first, second = (bootstrap_intervals(counts, figures_of, seed=3) for _ in range(2))

    assert first == second
    # 40 coin flips: the standard error is sqrt(0.25 / 40) = 0.079, not that of 200 answers.
    low, high = first["accuracy"]
    assert high - low == pytest.approx(2 * 1.96 * 0.079, rel=0.15)
    assert low < 0.5 < high
    assert first["acc_g"] == first["accuracy"]


def test_unequal_units_weigh_questions() -> None:
    intervals = bootstrap_intervals(counts_of(np.array([9, 0]), np.array([9, 1])), figures_of, draws=4000)

    # Both large 1.0, one of each 0.9, both small 0.0, with chances 1/4, 1/2, 1/4.
    assert intervals["accuracy"] == (0.0, 1.0)


def test_one_unit_has_an_interval_of_length_zero() -> None:
    assert bootstrap_intervals(counts_of(np.array([3]), np.array([4])), figures_of)["accuracy"] == (0.75, 0.75)


def coverage(
    units: int, chances: tuple[float, float] = (3.0, 1.0), by_question: bool = False, runs: int = 500
) -> tuple[float, float]:
    """How often the intervals of accuracy and Acc-G hold the truth; each unit's own chance is drawn from a Beta."""
    generator = np.random.default_rng(units)
    a, b = chances
    true_accuracy = a / (a + b)  # E[p]
    true_acc_g = np.prod([(a + k) / (a + b + k) for k in range(QUESTIONS)])  # E[p ** 5]
    held = np.zeros(2)
    for run in range(runs):
        right = generator.binomial(QUESTIONS, generator.beta(a, b, size=units))
        counts = counts_of(right, np.full(units, QUESTIONS))
        if by_question:
            single = np.concatenate([np.repeat([1, 0], [n, QUESTIONS - n]) for n in right])
            counts = counts_of(single, np.ones(len(single)))
        intervals = bootstrap_intervals(counts, figures_of, seed=run, draws=400)
        for place, (name, truth) in enumerate((("accuracy", true_accuracy), ("acc_g", true_acc_g))):
            held[place] += intervals[name][0] <= truth <= intervals[name][1]
    return float(held[0] / runs), float(held[1] / runs)


@pytest.mark.parametrize("units", [20, 60])
def test_intervals_cover_at_the_stated_rate(units: int) -> None:
    # 500 runs: the standard error of the rate is sqrt(0.95 * 0.05 / 500) = 0.0097.
    assert coverage(units) == pytest.approx((0.95, 0.95), abs=0.03)


def test_intervals_over_questions_would_not_cover() -> None:
    # Correlation 1/2 within a unit triples the variance: 1.96 / sqrt(3) standard errors hold 0.74.
    assert coverage(60, (0.75, 0.25), by_question=True, runs=100)[0] == pytest.approx(0.74, abs=0.13)
