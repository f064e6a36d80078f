"""The paired test against McNemar's exact test, full enumeration and its own level."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy.stats import binomtest

from sage_trl.errors import DataError
from sage_trl.evaluation.comparison import compare_models, sign_flip_p_value
from sage_trl.evaluation.counts import AskedGroup
from sage_trl.evaluation.predictions import Prediction
from tests.evaluation.test_metrics import prediction

LEVEL = "defect_diagnosis"


def rows(marks: dict[tuple[str, str], bool]) -> list[Prediction]:
    return [prediction(group, question, LEVEL, right, True) for (group, question), right in marks.items()]


def test_single_questions_give_mcnemars_exact_test() -> None:
    first = {(f"g{n}", "q"): n < 8 or n >= 10 for n in range(14)}
    second = {(f"g{n}", "q"): n >= 8 for n in range(14)}

    found = compare_models(rows(first), rows(second))

    assert (found.questions, found.units, found.only_first, found.only_second) == (14, 14, 8, 2)
    assert found.difference == pytest.approx(6 / 14)
    assert found.p_value == pytest.approx(binomtest(8, 10).pvalue)


def test_many_units_agree_with_mcnemar_up_to_the_draws() -> None:
    assert sign_flip_p_value([1] * 20 + [-1] * 8) == pytest.approx(binomtest(20, 28).pvalue, abs=0.008)


def test_units_move_as_one() -> None:
    gains = [3, 2, -1, 4, 1]
    sums = [abs(sum(s * g for s, g in zip(signs, gains, strict=True))) for signs in product((1, -1), repeat=5)]

    assert sign_flip_p_value(gains) == pytest.approx(np.mean(np.array(sums) >= 9))


def test_groups_of_one_board_are_one_unit() -> None:
    right = {(f"g{n}", "q"): True for n in range(6)}
    wrong = dict.fromkeys(right, False)
    boards = {f"g{n}": AskedGroup(LEVEL, 1, f"board{n // 3}") for n in range(6)}

    found = compare_models(rows(right), rows(wrong), boards)

    assert (found.units, found.p_value) == (2, 0.5)
    assert compare_models(rows(right), rows(wrong)).p_value == pytest.approx(2 / 64)


def test_a_model_does_not_differ_from_itself() -> None:
    same = rows({(f"g{n}", "q"): n % 2 == 0 for n in range(9)})

    found = compare_models(same, same[::-1])

    assert (found.difference, found.p_value) == (0.0, 1.0)


def test_equal_models_are_told_apart_at_most_at_the_level() -> None:
    generator = np.random.default_rng(0)
    values = [sign_flip_p_value(generator.integers(-3, 4, size=30).tolist(), seed, 200) for seed in range(300)]

    # 300 runs at level 0.05: standard error 0.0126.
    assert np.mean(np.array(values) <= 0.05) == pytest.approx(0.05, abs=0.04)


def test_nothing_in_common_is_an_error() -> None:
    with pytest.raises(DataError, match="share no graded question"):
        compare_models(rows({("a", "q"): True}), rows({("b", "q"): True}))
