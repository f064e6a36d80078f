"""Intervals of means over questions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t

from sage_trl.evaluation.mean_intervals import criterion_intervals, mean_intervals


def test_three_units_by_hand() -> None:
    scores = [(1, 1, 1), (3, 5, 1), (3, 5, 1), (4, 3, 1)]

    intervals = criterion_intervals("mle", scores, ["a", "b", "b", "c"], seed=0)

    # Type: the mean is 11 / 4; without a it is 10 / 3, without b 5 / 2, without c 7 / 3.
    values = 3 * 11 / 4 - 2 * np.array([10 / 3, 5 / 2, 7 / 3])
    half = t.ppf(0.975, 2) * values.std(ddof=1) / np.sqrt(3)
    assert intervals["mle/type"] == pytest.approx((max(1, 11 / 4 - half), min(5, 11 / 4 + half)))
    # Three units of the same logic do not tell how units vary.
    assert set(intervals) == {"mle/type", "mle/location", "mle/mean"}


def test_many_units_cover_the_mean_and_stay_on_the_scale() -> None:
    random = np.random.default_rng(0)
    scores = [tuple(random.integers(1, 6, 3)) for _ in range(200)]

    intervals = criterion_intervals("mle_rule", scores, [str(number // 4) for number in range(200)], seed=0)

    low, high = intervals["mle_rule/mean"]
    assert 1 < low < np.mean(scores) < high < 5
    assert high - low < 0.5


def test_two_units_on_another_scale_by_hand() -> None:
    intervals = mean_intervals({"sbert": [0.5, 0.7, 0.1]}, ["a", "a", "b"], (-1, 1), seed=0)

    # The mean is 1.3 / 3; without a it is 0.1, without b 0.6.
    values = 2 * 1.3 / 3 - np.array([0.1, 0.6])
    half = t.ppf(0.975, 1) * values.std(ddof=1) / np.sqrt(2)
    assert half > 2  # so the scale bounds it
    assert intervals == {"sbert": (-1, 1)}
    [(low, high)] = mean_intervals({"sbert": [0.5, 0.51, 0.5]}, ["a", "a", "b"], (-1, 1), seed=0).values()
    half = t.ppf(0.975, 1) * np.std([0.5, 0.505], ddof=1) / np.sqrt(2)
    assert (low, high) == pytest.approx((1.51 / 3 - half, 1.51 / 3 + half))


def test_the_mean_goes_by_reply() -> None:
    scores = [(1, 2, 3), (5, 5, 5), (3, 1, 2), (2, 2, 2)]
    intervals = criterion_intervals("mle", scores, list("abcd"), seed=0)
    alone = mean_intervals({"mean": [2, 5, 2, 2]}, list("abcd"), (1, 5), seed=0)
    assert intervals["mle/mean"] == pytest.approx(alone["mean"])


def test_one_unit_has_none() -> None:
    assert criterion_intervals("mle", [(1, 2, 3), (3, 4, 5)], ["a", "a"], seed=0) == {}
