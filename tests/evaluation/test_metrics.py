"""Metrics against figures derived by hand."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from sage_trl.evaluation.mean_intervals import mean_intervals
from sage_trl.evaluation.metrics import compute_metrics
from sage_trl.evaluation.predictions import Prediction, grade, results_key

KEY = "0" * 64


def prediction(group: str, question: str, level: str, predicted: bool | None, verdict: bool | None) -> Prediction:
    return Prediction(
        key=KEY,
        model="sfe",
        setting="one_shot",
        split="test",
        control=None,
        group_id=group,
        question_id=question,
        level=level,  # type: ignore[arg-type]
        question="Is it damaged?",
        prediction="...",
        predicted_verdict=predicted,
        verdict=verdict,
        correct=grade(predicted, verdict),
        seconds=0.1,
    )


# Group a: right, right. Group b: right, wrong, unreadable. Group c: right, and an open question.
PREDICTIONS = [
    prediction("a", "q1", "standard_comparison", True, True),
    prediction("a", "q2", "standard_comparison", False, False),
    prediction("b", "q1", "defect_identification", True, True),
    prediction("b", "q2", "defect_identification", True, False),
    prediction("b", "q3", "defect_identification", None, False),
    prediction("c", "q1", "defect_identification", False, False),
    prediction("c", "q2", "defect_identification", True, None),
]


def test_figures_derived_by_hand() -> None:
    metrics = compute_metrics(PREDICTIONS)

    assert metrics.accuracy == pytest.approx(4 / 6)
    assert metrics.accuracy_by_level == {"standard_comparison": 1.0, "defect_identification": pytest.approx(2 / 4)}
    assert metrics.accuracy_macro == pytest.approx((1.0 + 0.5) / 2)
    assert metrics.acc_g == pytest.approx(2 / 3)
    assert metrics.acc_g_by_level == {"standard_comparison": 1.0, "defect_identification": pytest.approx(1 / 2)}
    assert metrics.unreadable == 1
    assert metrics.questions == 6
    assert metrics.open == 1
    assert metrics.groups == 3
    assert metrics.majority_accuracy == pytest.approx(4 / 6)  # "no" is true for four of the six
    assert metrics.mle_rule is None


def test_rows_of_a_group_need_not_stand_together() -> None:
    shuffled = [PREDICTIONS[place] for place in (5, 0, 3, 6, 1, 4, 2)]

    assert compute_metrics(shuffled).acc_g == compute_metrics(PREDICTIONS).acc_g


def test_mean_judge_scores() -> None:
    metrics = compute_metrics(PREDICTIONS[:2], [(5.0, 3.0, 1.0), (4.0, 4.0, 4.0)])

    assert metrics.mle_rule is not None
    assert metrics.mle_rule.model_dump() == {"type": 4.5, "location": 3.5, "logic": 2.5, "mean": 3.5}


def test_similarity_and_brier_score_have_intervals_over_units() -> None:
    told = [row.model_copy(update={"yes_probability": 0.25}) for row in PREDICTIONS[:5]] + PREDICTIONS[5:]
    cosines = [1.0, 0.2, 0.5, 0.5, 0.5, 0.5, 0.3]
    metrics = compute_metrics(told, sbert=cosines)

    units = ["a", "a", "b", "b", "b", "c", "c"]
    assert metrics.sbert == pytest.approx(0.5)
    assert metrics.intervals["sbert"] == mean_intervals({"_": cosines}, units, (-1, 1), 0)["_"]
    # The verdicts of the five are yes, no, yes, no, no.
    errors = [0.75**2, 0.25**2, 0.75**2, 0.25**2, 0.25**2]
    assert metrics.calibration is not None
    assert metrics.calibration.brier == pytest.approx(np.mean(errors))
    assert metrics.intervals["calibration/brier"] == pytest.approx(
        mean_intervals({"_": errors}, units[:5], (0, 1), 0)["_"]
    )


def test_only_open_questions_have_no_accuracy() -> None:
    metrics = compute_metrics(PREDICTIONS[6:])

    assert (metrics.accuracy, metrics.acc_g, metrics.accuracy_macro, metrics.majority_accuracy) == (None,) * 4
    assert (metrics.questions, metrics.open, metrics.groups) == (0, 1, 0)
    assert metrics.intervals == {}


def test_json_has_the_fields_of_the_design() -> None:
    names = {"accuracy", "accuracy_by_level", "accuracy_macro", "acc_g", "acc_g_by_level", "unreadable", "questions"}
    names |= {"balanced_accuracy", "f1", "missing", "doubled", "incomplete", "group_sizes", "acc_g_by_size", "units"}
    names |= {"groups", "majority_accuracy", "sbert", "mle_rule", "intervals", "open", "calibration", "mmad"}
    names |= {"mle", "mle_unscored", "unanswered", "limit", "replies_sha256"}

    assert set(compute_metrics(PREDICTIONS).as_json()) == names


def test_a_prediction_with_a_wrong_grade_is_refused() -> None:
    fields = PREDICTIONS[0].model_dump() | {"correct": False}

    with pytest.raises(ValidationError, match="correct is False"):
        Prediction.model_validate(fields)


@pytest.mark.parametrize(
    ("split", "control", "expected"),
    [
        ("test", None, "one_shot"),
        ("unseen", None, "one_shot@unseen"),
        ("test", "blank_image", "one_shot+blank_image"),
        ("unseen", "no_facts", "one_shot@unseen+no_facts"),
    ],
)
def test_results_key(split: str, control: str | None, expected: str) -> None:
    assert results_key("one_shot", split, control) == expected
