"""Equations 3 and 4 against numbers derived by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sage_trl.preferences.entropy import answer_entropies, mle_score

SCORES = st.floats(1, 5)


def test_mle_is_the_mean_of_the_three_criteria():
    assert mle_score(5, 4, 2) == pytest.approx(11 / 3)


@pytest.mark.parametrize("bad", [0, 5.5, math.nan, math.inf])
def test_mle_refuses_what_is_no_score(bad):
    with pytest.raises(ValueError, match="location score"):
        mle_score(3, bad, 3)


def test_term_entropy_by_hand():
    # S = ln 4, ln 2, ln 1, ln 1 gives p = 1/2, 1/4, 1/8, 1/8 and -p ln p = ln2 * (1/2, 2/4, 3/8, 3/8).
    scores = [math.log(4), math.log(2), 0.0, 0.0]
    expected = [math.log(2) * share for share in (0.5, 0.5, 0.375, 0.375)]
    assert answer_entropies(scores).tolist() == pytest.approx(expected, abs=1e-15)


def test_surprisal_difference_is_the_score_gap():
    surprisal = answer_entropies([5.0, 3.0, 2.5, 1.0], "surprisal")
    assert (surprisal[3] - surprisal[0]).item() == pytest.approx(4.0)


def test_entropies_sum_to_the_paper_s_total_and_keep_batches_apart():
    scores = torch.tensor([[5.0, 4.0, 2.0, 1.0], [3.0, 3.0, 3.0, 3.0]])
    entropies = answer_entropies(scores)
    assert entropies.dtype == torch.float64
    assert entropies[1].sum().item() == pytest.approx(math.log(4))


def test_unknown_entropy_is_refused():
    with pytest.raises(ValueError, match="surprisal"):
        answer_entropies([1.0, 2.0], "shannon")


@given(st.lists(SCORES, min_size=2, max_size=6))
def test_terms_lie_between_zero_and_one_over_e(scores):
    entropies = answer_entropies(scores)
    assert (entropies >= 0).all()
    assert (entropies <= 1 / math.e + 1e-12).all()
