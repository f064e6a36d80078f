"""Confidence intervals over physical units: by bootstrap, or by the jackknife where there are few."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, stdtrit

DRAWS = 1000
CONFIDENCE = 0.95
# From 2, 3 and 5 units of 60 questions, bootstrap intervals held the truth 55, 80 and 90% of the time, the jackknife's
# 93, 95 and 95%; from 8 on they are alike. No number of draws helps: the ends are the extreme units.
FEW_UNITS = 8
ROUNDING = 1e-9

Array = npt.NDArray[np.float64]


def bootstrap_intervals(
    counts: Array, figures: Callable[[Array], Mapping[str, Array]], seed: int = 0, draws: int = DRAWS
) -> dict[str, tuple[float, float]]:
    """95% intervals of figures that follow from sums over units.

    Whole units are drawn with replacement, because questions on one object are not independent. The percentiles are
    those of the expanded percentile interval (Hesterberg 2015, What Teachers Should Know About the Bootstrap). Below
    `FEW_UNITS` units it is Student's interval of the jackknife instead (Tukey 1958), each unit left out in turn, which
    from two units is as wide as it must be. One unit has no interval.

    Args:
        counts: [units, columns].
        figures: from summed counts [draws, columns] to name -> [draws], fractions 0-1.
        seed: of the draws.
        draws: how often as many units are drawn as there are.

    Returns:
        name -> (low, high), for the figures that are defined in at least one of the samples drawn; by the jackknife,
        for those that are defined whichever unit is left out and are not the same for every unit: a few that agree say
        as little of how units vary as one does.
    """
    units = len(counts)
    if units < FEW_UNITS:
        return _jackknife_intervals(counts, figures) if units > 1 else {}
    weights = np.random.default_rng(seed).multinomial(units, np.full(units, 1 / units), size=draws)
    percentiles = 100 * _expanded_tails(units)
    intervals = {}
    for name, values in figures(weights @ counts).items():
        defined = values[~np.isnan(values)]
        if len(defined):
            low, high = np.percentile(defined, percentiles)
            intervals[name] = (float(low), float(high))
    return intervals


def _jackknife_intervals(
    counts: Array, figures: Callable[[Array], Mapping[str, Array]]
) -> dict[str, tuple[float, float]]:
    units, total = len(counts), counts.sum(axis=0)
    estimates, without_one = figures(total), figures(total - counts)
    reach = float(stdtrit(units - 1, (1 + CONFIDENCE) / 2)) / math.sqrt(units)
    intervals = {}
    for name, estimate in estimates.items():
        values = units * estimate - (units - 1) * without_one[name]
        spread = float(values.std(ddof=1))
        if spread > ROUNDING:  # not so where one is not a number
            half = reach * spread
            intervals[name] = (max(0.0, float(estimate) - half), min(1.0, float(estimate) + half))
    return intervals


def _expanded_tails(units: int) -> Array:
    """The two quantiles to take so that the interval has about the width of Student's for `units` units."""
    reach = math.sqrt(units / (units - 1)) * stdtrit(units - 1, (1 + CONFIDENCE) / 2)
    return np.array([ndtr(-reach), ndtr(reach)])
