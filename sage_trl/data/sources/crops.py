"""Where to cut crops from a photo: around defects, none of them cut in two, and away from all defects."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Grey = NDArray[np.float32]
PixelBox = tuple[int, int, int, int]
Corner = tuple[int, int]

# Pixels between a defect and the edge of a crop that holds it, or of one that does not.
MARGIN = 4
# A crop without a defect keeps this far from every box: boxes may be drawn tight.
CLEARANCE = 10
# Normal crops of one photo differ by at least this many pixels.
MIN_DISTANCE = 24
ATTEMPTS = 80
DARK = 128
SHARE_TOLERANCE = 0.06
MIN_SHARE = 0.02


@dataclass(frozen=True)
class Crop:
    """Upper left corner in pixels, and the indices of the boxes inside."""

    corner: Corner
    inside: tuple[int, ...]


@dataclass(frozen=True)
class Window:
    """Corners that a crop of `size` pixels may have, from (left, top) to (right, bottom), both included."""

    left: int
    top: int
    right: int
    bottom: int
    size: int

    @classmethod
    def shared(cls, shape: tuple[int, ...], shift: tuple[int, int], size: int) -> Window:
        """Corners for which the crop lies in both photos of a pair shifted by (dx, dy)."""
        height, width = shape[:2]
        dx, dy = shift
        return cls(max(0, dx), max(0, dy), min(width, width + dx) - size, min(height, height + dy) - size, size)


def crops_around_defects(boxes: Sequence[PixelBox], window: Window, repeats: int, rng: random.Random) -> list[Crop]:
    """Up to `repeats` crops of each box, each at a random place; crops with one defect are preferred.

    A box that is too large for a crop, or that always shares it with half of another, gets none.
    """
    crops: list[Crop] = []
    for index, box in enumerate(boxes):
        for _ in range(repeats):
            crop = _crop_around(index, box, boxes, window, rng)
            if crop is not None:
                crops.append(crop)
    return crops


def _crop_around(
    index: int, box: PixelBox, boxes: Sequence[PixelBox], window: Window, rng: random.Random
) -> Crop | None:
    low_x, high_x = max(window.left, box[2] + MARGIN - window.size), min(window.right, box[0] - MARGIN)
    low_y, high_y = max(window.top, box[3] + MARGIN - window.size), min(window.bottom, box[1] - MARGIN)
    if low_x > high_x or low_y > high_y:
        return None
    crowded: Crop | None = None
    for _ in range(ATTEMPTS):
        corner = rng.randint(low_x, high_x), rng.randint(low_y, high_y)
        inside = _whole_boxes(corner, boxes, window.size)
        if inside == (index,):
            return Crop(corner, inside)
        if inside is not None and crowded is None:
            crowded = Crop(corner, inside)
    return crowded


def _whole_boxes(corner: Corner, boxes: Sequence[PixelBox], size: int) -> tuple[int, ...] | None:
    """Indices of the boxes inside; None if any box lies partly inside, or too close to the crop's edge."""
    inside: list[int] = []
    for index, box in enumerate(boxes):
        if not _meets(corner, size, box, MARGIN):
            continue
        x, y = corner
        whole = x + MARGIN <= box[0] and box[2] <= x + size - MARGIN
        if not (whole and y + MARGIN <= box[1] and box[3] <= y + size - MARGIN):
            return None
        inside.append(index)
    return tuple(inside)


def _meets(corner: Corner, size: int, box: PixelBox, margin: int) -> bool:
    x, y = corner
    across = box[0] - margin < x + size and x < box[2] + margin
    return across and box[1] - margin < y + size and y < box[3] + margin


def crops_without_defect(
    boxes: Sequence[PixelBox], window: Window, wanted_shares: Sequence[float], grey: Grey, rng: random.Random
) -> list[Crop]:
    """For each wanted share of copper at most one crop with about that share, away from every box, never blank.

    With the shares of crops that have a defect, an empty or a crowded crop alone does not tell whether it has one.
    """
    crops: list[Crop] = []
    if window.left > window.right or window.top > window.bottom:
        return crops
    for wanted in wanted_shares:
        for _ in range(ATTEMPTS):
            corner = rng.randint(window.left, window.right), rng.randint(window.top, window.bottom)
            if any(_meets(corner, window.size, box, CLEARANCE) for box in boxes):
                continue
            if any(max(abs(corner[0] - c.corner[0]), abs(corner[1] - c.corner[1])) < MIN_DISTANCE for c in crops):
                continue
            share = copper_share(grey, corner, window.size)
            if share >= MIN_SHARE and abs(share - wanted) <= SHARE_TOLERANCE:
                crops.append(Crop(corner, ()))
                break
    return crops


def copper_share(grey: Grey, corner: Corner, size: int) -> float:
    """Share of dark pixels in a crop: copper is dark in these line scans."""
    x, y = corner
    return float((grey[y : y + size, x : x + size] < DARK).mean())
