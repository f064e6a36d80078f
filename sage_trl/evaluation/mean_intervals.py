"""Intervals of means over questions: of judge scores, similarities and squared errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from sage_trl.evaluation.bootstrap import bootstrap_intervals

Array = npt.NDArray[np.float64]
Interval = tuple[float, float]
SCORES = (1.0, 5.0)


def mean_intervals(
    values: Mapping[str, Sequence[float]], units: Sequence[str], scale: Interval, seed: int
) -> dict[str, Interval]:
    """95% intervals of the mean of each figure.

    Args:
        values: by the figure's name, one value per question.
        units: the physical unit of each question.
        scale: the lowest and the highest value there can be.
        seed: of the bootstrap draws.
    """
    lowest, highest = scale
    rows = {unit: row for row, unit in enumerate(sorted(set(units)))}
    sums = np.zeros((len(rows), len(values) + 1))
    for unit, *of_question in zip(units, *values.values(), strict=True):
        # As fractions of the scale, which is what the intervals are made for.
        sums[rows[unit]] += [*((value - lowest) / (highest - lowest) for value in of_question), 1]

    def means(summed: Array) -> Mapping[str, Array]:
        return {name: summed[..., column] / summed[..., -1] for column, name in enumerate(values)}

    intervals = bootstrap_intervals(sums, means, seed)
    return {
        name: (lowest + (highest - lowest) * low, lowest + (highest - lowest) * high)
        for name, (low, high) in intervals.items()
    }


def criterion_intervals(
    name: str, scores: Sequence[tuple[float, float, float]], units: Sequence[str], seed: int
) -> dict[str, Interval]:
    """95% intervals of mean judge scores, each 1-5, as `NAME/type`, `NAME/location`, `NAME/logic` and `NAME/mean`.

    Args:
        name: of the figures, such as `mle`.
        scores: (type, location, logic) of each reply that has a score.
        units: the physical unit of each.
        seed: of the bootstrap draws.
    """
    columns = dict(zip(("type", "location", "logic"), zip(*scores, strict=True), strict=True)) if scores else {}
    columns["mean"] = tuple(sum(criteria) / len(criteria) for criteria in scores)
    return mean_intervals({f"{name}/{figure}": column for figure, column in columns.items()}, units, SCORES, seed)
