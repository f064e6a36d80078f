"""Accuracy, Acc-G and their intervals from graded predictions (paper section 5.1, readings in DESIGN section 2)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sage_trl.evaluation.predictions import Prediction
from sage_trl.records import LEVELS, Level, Record

BOOTSTRAP_DRAWS = 1000
_INTERVAL_PERCENTILES = (2.5, 97.5)


class CriterionMeans(Record):
    """Mean judge scores over the questions, 1-5; `mean` is the mean of the MLE score (eq. 3)."""

    type: float
    location: float
    logic: float
    mean: float


class Metrics(Record):
    """The figures of one model in one setting: fractions 0-1, counts as whole numbers, None where nothing was graded.

    Open questions (no true verdict) are counted in `open` and enter neither `questions` nor any accuracy.
    `majority_accuracy` is the accuracy of the better of the two constant answers on the same questions.
    `intervals` holds 95% bootstrap intervals [low, high], drawn over groups.
    """

    accuracy: float | None
    accuracy_by_level: dict[Level, float]
    accuracy_macro: float | None
    acc_g: float | None
    acc_g_by_level: dict[Level, float]
    unreadable: int
    questions: int
    open: int
    groups: int
    majority_accuracy: float | None
    sbert: float | None
    mle_rule: CriterionMeans | None
    intervals: dict[str, tuple[float, float]]

    def as_json(self) -> dict[str, Any]:
        """The entry of `metrics.json`."""
        return self.model_dump(mode="json")


def compute_metrics(
    predictions: Sequence[Prediction],
    criterion_scores: Sequence[tuple[float, float, float]] | None = None,
    seed: int = 0,
) -> Metrics:
    """Reduce the predictions of one model in one setting on one split.

    Args:
        predictions: one per question, each question once.
        criterion_scores: the rule judge's (type, location, logic) per question, or None if no judge ran.
        seed: of the bootstrap draws.
    """
    graded = [prediction for prediction in predictions if prediction.verdict is not None]
    groups = _by_group(graded)
    by_level = {level: [p for p in graded if p.level == level] for level in LEVELS}
    accuracy_by_level = {level: _accuracy(rows) for level, rows in by_level.items() if rows}
    yes = sum(prediction.verdict is True for prediction in graded)
    return Metrics(
        accuracy=_accuracy(graded) if graded else None,
        accuracy_by_level=accuracy_by_level,
        accuracy_macro=float(np.mean(list(accuracy_by_level.values()))) if graded else None,
        acc_g=_acc_g(groups) if graded else None,
        acc_g_by_level={level: _acc_g(_by_group(rows)) for level, rows in by_level.items() if rows},
        unreadable=sum(prediction.predicted_verdict is None for prediction in graded),
        questions=len(graded),
        open=len(predictions) - len(graded),
        groups=len(groups),
        majority_accuracy=max(yes, len(graded) - yes) / len(graded) if graded else None,
        sbert=None,
        mle_rule=mean_criteria(criterion_scores) if criterion_scores else None,
        intervals=bootstrap_intervals(groups, seed) if graded else {},
    )


def mean_criteria(scores: Sequence[tuple[float, float, float]]) -> CriterionMeans:
    """Mean of (type, location, logic) over the questions, each 1-5."""
    type_mean, location_mean, logic_mean = (float(mean) for mean in np.mean(np.asarray(scores, dtype=float), axis=0))
    return CriterionMeans(
        type=type_mean,
        location=location_mean,
        logic=logic_mean,
        mean=(type_mean + location_mean + logic_mean) / 3,
    )


def bootstrap_intervals(
    groups: Mapping[str, Sequence[bool]], seed: int = 0, draws: int = BOOTSTRAP_DRAWS
) -> dict[str, tuple[float, float]]:
    """95% intervals of accuracy and Acc-G.

    Whole groups are drawn with replacement, because the questions of one group share their images and so are not
    independent.

    Args:
        groups: per group, whether each of its questions was answered right; none is empty.
        seed: of the draws.
        draws: how often as many groups are drawn as there are.
    """
    right = np.array([sum(marks) for marks in groups.values()], dtype=np.int64)  # [G]
    asked = np.array([len(marks) for marks in groups.values()], dtype=np.int64)  # [G]
    picks = np.random.default_rng(seed).integers(len(right), size=(draws, len(right)))  # [draws, G]
    accuracy = right[picks].sum(axis=1) / asked[picks].sum(axis=1)
    acc_g = (right == asked)[picks].mean(axis=1)
    return {"accuracy": _interval(accuracy), "acc_g": _interval(acc_g)}


def _interval(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.percentile(values, _INTERVAL_PERCENTILES)
    return float(low), float(high)


def _by_group(graded: Sequence[Prediction]) -> dict[str, list[bool]]:
    groups: dict[str, list[bool]] = defaultdict(list)
    for prediction in graded:
        groups[prediction.group_id].append(prediction.correct is True)
    return dict(groups)


def _accuracy(graded: Sequence[Prediction]) -> float:
    return sum(prediction.correct is True for prediction in graded) / len(graded)


def _acc_g(groups: Mapping[str, Sequence[bool]]) -> float:
    return sum(all(marks) for marks in groups.values()) / len(groups)
