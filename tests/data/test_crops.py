"""Crops: no defect cut in two, normal crops away from all boxes."""

from __future__ import annotations

import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_trl.data.sources.crops import (
    CLEARANCE,
    MARGIN,
    Window,
    copper_share,
    crops_around_defects,
    crops_without_defect,
)

SIZE = 128


@st.composite
def boxes(draw: st.DrawFn) -> list[tuple[int, int, int, int]]:
    found = []
    for _ in range(draw(st.integers(1, 8))):
        x, y = draw(st.integers(0, 560)), draw(st.integers(0, 560))
        found.append((x, y, x + draw(st.integers(20, 79)), y + draw(st.integers(20, 79))))
    return found


@settings(max_examples=60, deadline=None)
@given(boxes(), st.integers(0, 1000))
def test_a_box_lies_wholly_in_a_crop_or_wholly_outside(found: list[tuple[int, int, int, int]], seed: int) -> None:
    window = Window.shared((640, 640), (0, 0), SIZE)
    for crop in crops_around_defects(found, window, 2, random.Random(seed)):
        x, y = crop.corner
        assert 0 <= x <= 640 - SIZE and 0 <= y <= 640 - SIZE
        for index, (x1, y1, x2, y2) in enumerate(found):
            whole = x + MARGIN <= x1 and x2 <= x + SIZE - MARGIN and y + MARGIN <= y1 and y2 <= y + SIZE - MARGIN
            outside = x2 <= x or x + SIZE <= x1 or y2 <= y or y + SIZE <= y1
            assert whole if index in crop.inside else outside


@settings(max_examples=30, deadline=None)
@given(boxes(), st.integers(0, 1000))
def test_normal_crops_keep_clear(found: list[tuple[int, int, int, int]], seed: int) -> None:
    grey = np.tile(np.repeat([0.0, 255.0], 16), (640, 20)).astype(np.float32)
    window = Window.shared(grey.shape, (0, 0), SIZE)
    for crop in crops_without_defect(found, window, [0.5] * 3, grey, random.Random(seed)):
        x, y = crop.corner
        for x1, y1, x2, y2 in found:
            assert (
                x2 + CLEARANCE <= x or x + SIZE <= x1 - CLEARANCE or y2 + CLEARANCE <= y or y + SIZE <= y1 - CLEARANCE
            )


def test_window_leaves_room_for_the_shift() -> None:
    # With dx = 5 the reference crop begins 5 px further left, with dy = -3 it begins 3 px lower.
    assert Window.shared((640, 600), (5, -3), SIZE) == Window(5, 0, 472, 509, SIZE)


def test_blank_places_and_large_boxes_give_no_crop() -> None:
    white = np.full((640, 640), 255, dtype=np.float32)
    window = Window.shared(white.shape, (0, 0), SIZE)
    assert crops_without_defect([], window, [0.0, 0.01], white, random.Random(0)) == []
    assert crops_around_defects([(10, 10, 140, 30)], window, 2, random.Random(0)) == []


def test_copper_is_dark() -> None:
    half = np.zeros((10, 10), dtype=np.float32)
    half[:, 5:] = 255
    assert copper_share(half, (0, 0), 10) == 0.5
