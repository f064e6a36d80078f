"""Accuracy, Acc-G and their intervals from graded predictions (paper section 5.1, readings in DESIGN section 2)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sage_trl.evaluation.bootstrap import bootstrap_intervals
from sage_trl.evaluation.calibration import Calibration, calibrate
from sage_trl.evaluation.counts import AskedGroup, count_by_unit, figures_of, groups_of, without_doubles
from sage_trl.evaluation.mean_intervals import criterion_intervals, mean_intervals
from sage_trl.evaluation.mmad import MmadFigures
from sage_trl.evaluation.predictions import MmadProtocol, Prediction
from sage_trl.records import LEVELS, Level, Record

COSINES = (-1.0, 1.0)
FRACTIONS = (0.0, 1.0)


class CriterionMeans(Record):
    """Mean judge scores over the questions, 1-5; `mean` is the mean of the MLE score (eq. 3)."""

    type: float
    location: float
    logic: float
    mean: float


class Metrics(Record):
    """The figures of one model in one setting: fractions 0-1, counts as whole numbers, None where nothing was graded.

    Open questions (no true verdict, no options) are counted in `open` and enter neither `questions` nor any accuracy.
    `majority_accuracy` is the accuracy of the best constant answers, a verdict and a letter, on the same questions.
    `balanced_accuracy` is the mean of the recalls of yes and no, None without both; `f1` takes yes as positive, and a
    reply that cannot be read as the wrong answer. `calibration` compares the yes-probability with the true verdicts,
    None where the model told none. `mmad` holds MMAD's own table by protocol, None without its questions.
    `group_sizes` and `acc_g_by_size` go by how many graded questions a group has ("5" in the paper). `missing` counts
    graded questions without a prediction: they enter no accuracy, but their group is `incomplete` and never right.
    `doubled` counts rows that repeat a question, which enter nothing. `unanswered` counts the questions, open ones
    included, to which a server gave no reply: no reply is made up for them.
    `mle_rule` holds the scores of the rule judge, `mle` those of a language model. `mle_unscored` counts the replies
    that it gave no score, such as those in quarantine: they enter no mean.
    `limit` is the number of groups that were asked where the split has more. `replies_sha256` is of the replies and of
    what they are scored by: figures with the same one are of the same replies to the same questions.
    `intervals` holds 95% intervals [low, high] over physical units (see `bootstrap_intervals`), by name, those of a
    level as `accuracy_by_level/LEVEL`, of a judge as `mle/type`, of the Brier score as `calibration/brier`.
    """

    accuracy: float | None
    balanced_accuracy: float | None
    f1: float | None
    accuracy_by_level: dict[Level, float]
    accuracy_macro: float | None
    acc_g: float | None
    acc_g_by_level: dict[Level, float]
    unreadable: int
    questions: int
    open: int
    missing: int
    doubled: int
    groups: int
    incomplete: int
    group_sizes: dict[str, int]
    acc_g_by_size: dict[str, float]
    units: int
    majority_accuracy: float | None
    sbert: float | None
    calibration: Calibration | None
    mmad: dict[MmadProtocol, MmadFigures | None] | None
    mle_rule: CriterionMeans | None
    mle: CriterionMeans | None = None
    mle_unscored: int = 0
    unanswered: int = 0
    limit: int | None = None
    replies_sha256: str | None = None
    intervals: dict[str, tuple[float, float]]

    def as_json(self) -> dict[str, Any]:
        """The entry of `metrics.json`."""
        return self.model_dump(mode="json")


def compute_metrics(
    predictions: Sequence[Prediction],
    criterion_scores: Sequence[tuple[float, float, float]] | None = None,
    seed: int = 0,
    *,
    groups: Mapping[str, AskedGroup] | None = None,
    sbert: Sequence[float] | None = None,
    mmad: Mapping[MmadProtocol, MmadFigures | None] | None = None,
) -> Metrics:
    """Reduce the predictions of one model in one setting on one split; their order does not matter.

    Args:
        predictions: one per question; a row that repeats another is counted once.
        criterion_scores: the rule judge's (type, location, logic) per question, or None if no judge ran.
        seed: of the bootstrap draws.
        groups: what was asked, by group; without it nothing is known to be missing and each group is a unit.
        sbert: SBERT similarity per prediction, if it was measured.
        mmad: MMAD's table by protocol, where its questions were asked.

    Raises:
        DataError: two rows of one question differ.
    """
    rows = without_doubles(predictions)
    graded = [prediction for prediction in rows if prediction.correct is not None]
    asked = {name: group for name, group in (groups or groups_of(rows)).items() if group.questions}
    counts = count_by_unit(graded, asked)
    figures = {name: _known(value) for name, value in figures_of(counts.sum(axis=0)).items()}
    answered = Counter(prediction.group_id for prediction in graded)
    intervals = bootstrap_intervals(counts, figures_of, seed) if graded else {}
    units = [groups[row.group_id].unit if groups else row.group_id for row in predictions]
    if criterion_scores:
        intervals |= criterion_intervals("mle_rule", criterion_scores, units, seed)
    if sbert:
        intervals |= mean_intervals({"sbert": sbert}, units, COSINES, seed)
    told = _told(graded)
    if told:
        errors = [(chance - verdict) ** 2 for chance, verdict, _ in told]
        asked_of = [asked[group_id].unit for _, _, group_id in told]
        intervals |= mean_intervals({"calibration/brier": errors}, asked_of, FRACTIONS, seed)
    return Metrics(
        accuracy=figures["accuracy"],
        balanced_accuracy=figures["balanced_accuracy"],
        f1=figures["f1"],
        accuracy_by_level=_by_level(figures, "accuracy_by_level"),
        accuracy_macro=figures["accuracy_macro"],
        acc_g=figures["acc_g"],
        acc_g_by_level=_by_level(figures, "acc_g_by_level"),
        unreadable=sum(prediction.answer is None for prediction in graded),
        questions=len(graded),
        open=len(rows) - len(graded),
        missing=sum(group.questions for group in asked.values()) - len(graded),
        doubled=len(predictions) - len(rows),
        groups=len(asked),
        incomplete=sum(answered[name] < group.questions for name, group in asked.items()),
        group_sizes=dict(sorted(Counter(str(group.questions) for group in asked.values()).items())),
        acc_g_by_size=_acc_g_by_size(graded, asked),
        units=len(counts),
        majority_accuracy=_majority_accuracy(graded),
        sbert=float(np.mean(sbert)) if sbert else None,
        calibration=calibrate([row[0] for row in told], [row[1] for row in told]) if told else None,
        mmad=None if mmad is None else dict(mmad),
        mle_rule=mean_criteria(criterion_scores) if criterion_scores else None,
        intervals=intervals,
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


def _majority_accuracy(graded: Sequence[Prediction]) -> float | None:
    verdicts = Counter(row.verdict for row in graded if row.verdict is not None)
    letters = Counter(row.choice for row in graded if row.verdict is None)
    best = sum(max(counts.values(), default=0) for counts in (verdicts, letters))
    return best / len(graded) if graded else None


def _told(graded: Sequence[Prediction]) -> list[tuple[float, bool, str]]:
    """Yes-probability, verdict and group of the questions that have both."""
    return [
        (row.yes_probability, row.verdict, row.group_id)
        for row in graded
        if row.yes_probability is not None and row.verdict is not None
    ]


def _known(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)


def _by_level(figures: Mapping[str, float | None], name: str) -> dict[Level, float]:
    values = {level: figures[f"{name}/{level}"] for level in LEVELS}
    return {level: value for level, value in values.items() if value is not None}


def _acc_g_by_size(graded: Sequence[Prediction], asked: Mapping[str, AskedGroup]) -> dict[str, float]:
    right = Counter(prediction.group_id for prediction in graded if prediction.correct)
    sizes = sorted({group.questions for group in asked.values()})
    marks = {size: [right[name] == size for name, group in asked.items() if group.questions == size] for size in sizes}
    return {str(size): sum(values) / len(values) for size, values in marks.items()}
