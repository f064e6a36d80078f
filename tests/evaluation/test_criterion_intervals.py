"""Intervals of mean scores."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t

from sage_trl.evaluation.criterion_intervals import criterion_intervals


def test_three_units_by_hand() -> None:
    scores = [(1, 1, 1), (3, 5, 1), (3, 5, 1), (4, 3, 1)]

    intervals = criterion_intervals("mle", scores, ["a", "b", "b", "c"], seed=0)

    # Type: the mean is 11 / 4; without a it is 10 / 3, without b 5 / 2, without c 7 / 3.
    values = 3 * 11 / 4 - 2 * np.array([10 / 3, 5 / 2, 7 / 3])
    half = t.ppf(0.975, 2) * values.std(ddof=1) / np.sqrt(3)
    assert intervals["mle/type"] == pytest.approx((max(1, 11 / 4 - half), min(5, 11 / 4 + half)))
    assert intervals["mle/logic"] == (1, 1)
    assert set(intervals) == {"mle/type", "mle/location", "mle/logic", "mle/mean"}


def test_many_units_cover_the_mean_and_stay_on_the_scale() -> None:
    random = np.random.default_rng(0)
    scores = [tuple(random.integers(1, 6, 3)) for _ in range(200)]

    intervals = criterion_intervals("mle_rule", scores, [str(number // 4) for number in range(200)], seed=0)

    low, high = intervals["mle_rule/mean"]
    assert 1 < low < np.mean(scores) < high < 5
    assert high - low < 0.5


def test_one_unit_has_none() -> None:
    assert criterion_intervals("mle", [(1, 2, 3), (3, 4, 5)], ["a", "a"], seed=0) == {}
