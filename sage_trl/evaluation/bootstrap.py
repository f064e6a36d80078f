"""Bootstrap intervals over physical units."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
from scipy.stats import norm, t

DRAWS = 1000
CONFIDENCE = 0.95

Array = npt.NDArray[np.float64]


def bootstrap_intervals(
    counts: Array, figures: Callable[[Array], Mapping[str, Array]], seed: int = 0, draws: int = DRAWS
) -> dict[str, tuple[float, float]]:
    """95% intervals of figures that follow from sums over units.

    Whole units are drawn with replacement, because questions on one object are not independent. The percentiles are
    those of the expanded percentile interval (Hesterberg 2015, What Teachers Should Know About the Bootstrap), without
    which intervals from few units are too narrow.

    Args:
        counts: [units, columns].
        figures: from summed counts [draws, columns] to name -> [draws].
        seed: of the draws.
        draws: how often as many units are drawn as there are.

    Returns:
        name -> (low, high), for the figures that are defined in every sample drawn or at least in one.
    """
    units = len(counts)
    weights = np.random.default_rng(seed).multinomial(units, np.full(units, 1 / units), size=draws)
    percentiles = 100 * _expanded_tails(units)
    intervals = {}
    for name, values in figures(weights @ counts).items():
        defined = values[~np.isnan(values)]
        if len(defined):
            low, high = np.percentile(defined, percentiles)
            intervals[name] = (float(low), float(high))
    return intervals


def _expanded_tails(units: int) -> Array:
    """The two quantiles to take so that the interval has about the width of Student's for `units` units."""
    if units < 2:
        return np.array([0.0, 1.0])
    reach = math.sqrt(units / (units - 1)) * t.ppf((1 + CONFIDENCE) / 2, units - 1)
    return np.array([norm.cdf(-reach), norm.cdf(reach)])
