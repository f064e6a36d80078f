"""Calibration against figures by hand, scikit-learn and a generator that is calibrated."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from sage_trl.evaluation.calibration import calibrate


def test_figures_by_hand() -> None:
    found = calibrate([0.1, 0.3, 0.9, 1.0], [False, True, True, False], bins=2)

    assert [(b.low, b.high, b.questions) for b in found.bins] == [(0.0, 0.5, 2), (0.5, 1.0, 2)]
    assert [b.mean_probability for b in found.bins] == pytest.approx([0.2, 0.95])
    assert [b.yes_share for b in found.bins] == [0.5, 0.5]
    assert found.expected_calibration_error == pytest.approx(0.5 * 0.3 + 0.5 * 0.45)
    assert found.brier == pytest.approx((0.01 + 0.49 + 0.01 + 1.0) / 4)


def test_agrees_with_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    chance = generator.random(500)
    true = generator.random(500) < chance**2

    found = calibrate(chance.tolist(), true.tolist())

    shares, means = calibration_curve(true, chance, n_bins=10)
    assert [b.yes_share for b in found.bins] == pytest.approx(shares.tolist())
    assert [b.mean_probability for b in found.bins] == pytest.approx(means.tolist())
    assert found.brier == pytest.approx(brier_score_loss(true, chance))


def test_a_calibrated_model_has_a_small_error() -> None:
    generator = np.random.default_rng(1)
    chance = generator.random(20_000)

    assert calibrate(chance.tolist(), (generator.random(20_000) < chance).tolist()).expected_calibration_error < 0.02


def test_empty_bins_are_shown_as_empty() -> None:
    found = calibrate([0.95], [True])

    assert found.bins[0].model_dump() == {
        "low": 0.0,
        "high": pytest.approx(0.1),
        "questions": 0,
        "mean_probability": None,
        "yes_share": None,
    }


@pytest.mark.parametrize(
    ("chance", "true"), [([], []), ([0.5], [True, False]), ([1.1], [True]), ([float("nan")], [True])]
)
def test_what_is_no_probability_is_refused(chance: list[float], true: list[bool]) -> None:
    with pytest.raises(ValueError, match="probabilit"):
        calibrate(chance, true)
