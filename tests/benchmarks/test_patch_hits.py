"""What counts as a hit, by hand."""

import pytest

from benchmarks.patch_hits import count_hits, touches


def test_boxes_touch_where_they_share_an_area():
    assert touches((0.0, 0.0, 0.5, 0.5), (0.4, 0.4, 0.6, 0.6))
    assert not touches((0.0, 0.0, 0.5, 0.5), (0.5, 0.0, 1.0, 0.5))
    assert not touches((0.0, 0.0, 0.5, 0.5), (0.1, 0.6, 0.4, 0.9))


def test_hits_beside_those_of_a_random_draw():
    # Two of four patches drawn, one of four is on the defect: a draw misses it in 3 of 6 cases.
    counted = count_hits([True, False], [False, True, False, False])
    assert counted == pytest.approx([0.5, 1, 1, 0.25, 0.25, 0.5, 1, 0])
    assert count_hits([False, False], [True, True, True, False])[2:6] == pytest.approx([0, 0.75, 0.75, 1])
