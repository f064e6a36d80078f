"""How far a model's yes-probability can be trusted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sage_trl.records import Record

BINS = 10


class CalibrationBin(Record):
    """The questions whose yes-probability is in [low, high), in the last bin also 1; fractions 0-1.

    `mean_probability` and `yes_share` are None in an empty bin.
    """

    low: float
    high: float
    questions: int
    mean_probability: float | None
    yes_share: float | None


class Calibration(Record):
    """Reliability bins, expected calibration error and Brier score of the yes-probability, and of how many questions."""

    questions: int
    bins: tuple[CalibrationBin, ...]
    expected_calibration_error: float
    brier: float


def calibrate(probabilities: Sequence[float], verdicts: Sequence[bool], bins: int = BINS) -> Calibration:
    """Compare yes-probabilities with the true verdicts, in bins of equal width.

    Args:
        probabilities: of yes, 0-1, one per question.
        verdicts: the true answers.
        bins: how many.

    Raises:
        ValueError: nothing given, lengths differ, or a value is no probability.
    """
    chance = np.asarray(probabilities, dtype=float)
    true = np.asarray(verdicts, dtype=float)
    if chance.ndim != 1 or chance.shape != true.shape or not len(chance):
        raise ValueError(
            f"{len(probabilities)} probabilities for {len(verdicts)} verdicts; give one each, at least one"
        )
    if not np.all((chance >= 0) & (chance <= 1)):
        raise ValueError("a yes-probability is not between 0 and 1")
    edges = np.linspace(0, 1, bins + 1)
    place = np.digitize(chance, edges[1:-1])
    made, error = [], 0.0
    for number in range(bins):
        inside = place == number
        size = int(inside.sum())
        mean, share = (float(chance[inside].mean()), float(true[inside].mean())) if size else (None, None)
        if mean is not None and share is not None:
            error += size / len(chance) * abs(mean - share)
        made.append(
            CalibrationBin(
                low=float(edges[number]),
                high=float(edges[number + 1]),
                questions=size,
                mean_probability=mean,
                yes_share=share,
            )
        )
    return Calibration(
        questions=len(chance),
        bins=tuple(made),
        expected_calibration_error=error,
        brier=float(np.mean((chance - true) ** 2)),
    )
