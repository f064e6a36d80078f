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


def test_few_units_have_students_interval() -> None:
    # Equal units, so the jackknife is the mean of 0.6, 0.7 and 0.8: 0.1 / sqrt(3) times 4.303, t of two degrees.
    low, high = bootstrap_intervals(counts_of(np.array([6, 7, 8]), np.full(3, 10)), figures_of)["accuracy"]

    assert (low, high) == (pytest.approx(0.7 - 0.2484, abs=1e-3), pytest.approx(0.7 + 0.2484, abs=1e-3))


def test_unequal_units_weigh_questions() -> None:
    # 12 of 20 right, 4 of 10 without the first, 8 of 10 without the second: so 0.2 times 12.7 each way.
    few = bootstrap_intervals(counts_of(np.array([8, 4]), np.array([10, 10])), figures_of)
    # Ten times one large unit, ten times one small: 9 of 9 and 0 of 1 each.
    many = bootstrap_intervals(counts_of(np.tile([9, 0], 10), np.tile([9, 1], 10)), figures_of)

    assert few["accuracy"] == (0.0, 1.0)
    assert many["accuracy"][0] < 0.9 < many["accuracy"][1] and many["accuracy"][0] > 0.7


def test_one_unit_has_no_interval() -> None:
    assert bootstrap_intervals(counts_of(np.array([3]), np.array([4])), figures_of) == {}


@pytest.mark.parametrize("right", [0, 3, 5])
def test_a_few_units_that_agree_have_no_interval(right: int) -> None:
    # Three pictures of which two answers in five are right do not tell that all are so.
    assert "accuracy" not in bootstrap_intervals(counts_of(np.full(3, right), np.full(3, 5)), figures_of)


def test_a_figure_that_hangs_on_one_of_few_units_has_no_interval() -> None:
    counts = counts_of(np.array([3, 4, 2]), np.array([5, 5, 5]))
    counts[0, [2, 3]] = [1, 2]  # only the first unit has questions whose answer is no

    intervals = bootstrap_intervals(counts, figures_of)

    assert "accuracy" in intervals and "balanced_accuracy" not in intervals


def coverage(
    units: int,
    chances: tuple[float, float] = (3.0, 1.0),
    by_question: bool = False,
    runs: int = 300,
    size: int = QUESTIONS,
) -> tuple[float, float]:
    """How often the intervals of accuracy and Acc-G hold the truth; each unit's own chance is drawn from a Beta."""
    generator = np.random.default_rng(units)
    a, b = chances
    true_accuracy = a / (a + b)  # E[p]
    true_acc_g = np.prod([(a + k) / (a + b + k) for k in range(size)])  # E[p ** size]
    held = np.zeros(2)
    for run in range(runs):
        right = generator.binomial(size, generator.beta(a, b, size=units))
        counts = counts_of(right, np.full(units, size))
        if by_question:
            single = np.concatenate([np.repeat([1, 0], [n, size - n]) for n in right])
            counts = counts_of(single, np.ones(len(single)))
        intervals = bootstrap_intervals(counts, figures_of, seed=run, draws=400)
        for place, (name, truth) in enumerate((("accuracy", true_accuracy), ("acc_g", true_acc_g))):
            low, high = intervals.get(name, (np.nan, np.nan))  # no interval holds nothing
            held[place] += low <= truth <= high
    return float(held[0] / runs), float(held[1] / runs)


@pytest.mark.parametrize("units", [8, 20, 60])
def test_intervals_cover_at_the_stated_rate(units: int) -> None:
    # 300 runs: the standard error of the rate is sqrt(0.95 * 0.05 / 300) = 0.0126.
    assert coverage(units) == pytest.approx((0.95, 0.95), abs=0.03)


@pytest.mark.parametrize("units", [2, 3, 5])
def test_intervals_of_a_few_large_units_cover_too(units: int) -> None:
    # Boards of 60 questions, whose own chance is about 0.75 +- 0.07.
    assert coverage(units, (30.0, 10.0), size=60)[0] == pytest.approx(0.95, abs=0.04)


def test_intervals_over_questions_would_not_cover() -> None:
    # Correlation 1/2 within a unit triples the variance: 1.96 / sqrt(3) standard errors hold 0.74.
    assert coverage(60, (0.75, 0.25), by_question=True, runs=100)[0] == pytest.approx(0.74, abs=0.13)
