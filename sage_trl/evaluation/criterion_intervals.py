"""Intervals of a judge's mean scores over physical units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from sage_trl.evaluation.bootstrap import bootstrap_intervals

Array = npt.NDArray[np.float64]
LOWEST, HIGHEST = 1, 5


def criterion_intervals(
    name: str, scores: Sequence[tuple[float, float, float]], units: Sequence[str], seed: int
) -> dict[str, tuple[float, float]]:
    """95% intervals of the mean scores, each 1-5, as `NAME/type`, `NAME/location`, `NAME/logic` and `NAME/mean`.

    Args:
        name: of the figures, such as `mle`.
        scores: (type, location, logic) of each reply that has a score.
        units: the physical unit of each.
        seed: of the bootstrap draws.
    """
    rows = {unit: row for row, unit in enumerate(sorted(set(units)))}
    sums = np.zeros((len(rows), 4))
    for unit, criteria in zip(units, scores, strict=True):
        # As fractions of the scale, which is what the intervals are made for.
        sums[rows[unit]] += [*((score - LOWEST) / (HIGHEST - LOWEST) for score in criteria), 1]
    intervals = bootstrap_intervals(sums, _means, seed)
    return {f"{name}/{figure}": (_on_scale(low), _on_scale(high)) for figure, (low, high) in intervals.items()}


def _means(sums: Array) -> Mapping[str, Array]:
    means = sums[..., :3] / sums[..., 3:]
    return {
        "type": means[..., 0],
        "location": means[..., 1],
        "logic": means[..., 2],
        "mean": means.mean(axis=-1),
    }


def _on_scale(fraction: float) -> float:
    return LOWEST + (HIGHEST - LOWEST) * fraction
