"""Equation 5: which pairs are chosen."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_trl.preferences.selection import SelectedPair, is_inverted, select_preference_pairs


def test_both_pairs_by_hand():
    # p of (5, 2, 1.5, 1) is e^0, e^-3, e^-3.5, e^-4 over their sum 1.098300; the terms are .085371, .140244,
    # .098810, .068270, so the smallest adjacent gap is the last one, and dH_max = .017101 is smaller still.
    smallest, widest = sorted(select_preference_pairs([5, 2, 1.5, 1]), key=lambda pair: pair.kind == "max")
    assert (smallest.winner, smallest.loser, smallest.kind) == (2, 3, "min")
    assert smallest.delta_entropy == pytest.approx(0.030540, abs=5e-6)
    assert (widest.winner, widest.loser, widest.kind) == (0, 3, "max")
    assert widest.delta_entropy == pytest.approx(0.017101, abs=5e-6)


def test_pairs_come_in_rank_order():
    assert [pair.winner for pair in select_preference_pairs([5, 2, 1.5, 1])] == [0, 2]


@pytest.mark.parametrize("wanted", ["min", "max"])
def test_one_kind_alone(wanted):
    assert [pair.kind for pair in select_preference_pairs([5, 4, 2, 1], wanted)] == [wanted]


def test_a_tie_goes_to_the_higher_ranked_pair():
    assert select_preference_pairs([3, 3, 3, 1], "min") == [SelectedPair(0, 1, 0.0, "min")]


def test_two_answers_give_one_pair():
    (pair,) = select_preference_pairs([4, 2])
    assert (pair.winner, pair.loser) == (0, 1)


def test_an_incomplete_set_gives_no_pair():
    assert select_preference_pairs([5, math.nan, 2, 1]) == []


def test_the_better_rank_wins_even_where_the_judge_disagrees():
    scores = [2, 5, 4, 3]
    (pair,) = select_preference_pairs(scores, "max")
    assert (pair.winner, pair.loser) == (0, 3)
    assert is_inverted(scores, pair)


@pytest.mark.parametrize(("scores", "choice"), [([1.0], "both"), ([1.0, 2.0], "all")])
def test_bad_arguments_are_refused(scores, choice):
    with pytest.raises(ValueError):
        select_preference_pairs(scores, choice)


@given(st.lists(st.floats(1, 5), min_size=3, max_size=6))
def test_min_is_adjacent_and_no_other_adjacent_gap_is_smaller(scores):
    from sage_trl.preferences.entropy import answer_entropies

    (pair,) = select_preference_pairs(scores, "min")
    gaps = answer_entropies(scores).diff().abs().tolist()
    assert pair.loser == pair.winner + 1
    assert pair.delta_entropy <= min(gaps) + 1e-12
