"""Words for places in a picture: a 3x3 grid of cells and four halves, and how far a named place is from a box."""

from __future__ import annotations

from collections.abc import Iterable

Box = tuple[float, float, float, float]
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
"""The box of a defect whose place nothing tells."""
UNKNOWN_PLACE = "in a place that is not known"
"""What language models are told of it."""

# Name -> (column, row) of the 3x3 grid, and the phrase that follows a verb.
CELLS: dict[str, tuple[int, int]] = {
    "upper left": (0, 0),
    "top": (1, 0),
    "upper right": (2, 0),
    "left": (0, 1),
    "centre": (1, 1),
    "right": (2, 1),
    "lower left": (0, 2),
    "bottom": (1, 2),
    "lower right": (2, 2),
}
# Name -> (axis, side): axis 0 is horizontal, side 0 is left or upper.
HALVES: dict[str, tuple[int, int]] = {
    "left half": (0, 0),
    "right half": (0, 1),
    "upper half": (1, 0),
    "lower half": (1, 1),
}
_AT = {"top": "at the top", "bottom": "at the bottom", "left": "on the left", "right": "on the right"}
_NOUNS = {"left": "left side", "right": "right side"}

# A box runs along an edge if it lies in this outer share of the picture and covers at least that share of the edge.
EDGE_BAND, ALONG = 0.2, 0.5

EXACT, COARSE, ADJACENT, UNNAMED, WRONG = 5, 4, 3, 2, 1
# Where nothing tells the place: alike for every place named and for none, so that it decides nothing.
UNKNOWN = 3


def has_place(box: Box) -> bool:
    """Whether a defect's box tells where it is: the whole picture does not."""
    return tuple(box) != WHOLE


def place_phrase(place: str) -> str:
    """`upper left` -> `in the upper left`, `top` -> `at the top`."""
    return _AT.get(place, f"in the {place}")


def place_noun(place: str) -> str:
    """`left` -> `left side`: the place as the subject of a sentence."""
    return _NOUNS.get(place, place)


def centre(box: Box) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def cell_of(box: Box) -> str:
    """Name of the grid cell that holds the centre of a box given in fractions of width and height."""
    column, row = (min(2, int(3 * value)) for value in centre(box))
    return next(name for name, cell in CELLS.items() if cell == (column, row))


def halves_of(box: Box) -> tuple[str, str]:
    """Names of the horizontal and the vertical half that hold the box's centre."""
    x, y = centre(box)
    return ("left half" if x < 0.5 else "right half", "upper half" if y < 0.5 else "lower half")


def bounds(place: str) -> Box:
    """The area that a place name covers, in fractions."""
    if place in CELLS:
        column, row = CELLS[place]
        return column / 3, row / 3, (column + 1) / 3, (row + 1) / 3
    axis, side = HALVES[place]
    low, high = side / 2, (side + 1) / 2
    return (low, 0.0, high, 1.0) if axis == 0 else (0.0, low, 1.0, high)


def in_place(box: Box, place: str) -> bool:
    """Whether the box's centre lies in the place."""
    return place in halves_of(box) if place in HALVES else place == cell_of(box)


def touches(box: Box, place: str) -> bool:
    """Whether any part of the box lies in the place; a place that is touched but not hit is left unasked."""
    left, top, right, bottom = bounds(place)
    return box[0] < right and box[2] > left and box[1] < bottom and box[3] > top


def edge_of(box: Box) -> str | None:
    """The edge (left, right, top or bottom) that a box runs along, at least over half of it, if any."""
    left, top, right, bottom = box
    if bottom - top >= ALONG and right - left <= EDGE_BAND:
        return "left" if right <= EDGE_BAND else "right" if left >= 1 - EDGE_BAND else None
    if right - left >= ALONG and bottom - top <= EDGE_BAND:
        return "top" if bottom <= EDGE_BAND else "bottom" if top >= 1 - EDGE_BAND else None
    return None


def places_in_words(boxes: Iterable[Box]) -> str:
    """Where boxes lie: "in the upper left", "along the top edge", "at the top and on the right"; "" if none tells."""
    told = filter(has_place, boxes)
    phrases = [f"along the {edge} edge" if (edge := edge_of(box)) else place_phrase(cell_of(box)) for box in told]
    several = list(dict.fromkeys(phrases))
    return " and ".join([", ".join(several[:-1]), several[-1]]) if len(several) > 1 else "".join(several)


def place_score(place: str | None, box: Box) -> int:
    """How well a named place fits a box, 1-5: exact cell, right half, neighbouring cell, no place named, wrong.

    Any place, and none, scores 3 where the box does not tell the place.
    """
    if not has_place(box):
        return UNKNOWN
    if place is None:
        return UNNAMED
    if place in HALVES:
        return COARSE if in_place(box, place) else WRONG
    (column, row), (true_column, true_row) = CELLS[place], CELLS[cell_of(box)]
    distance = max(abs(column - true_column), abs(row - true_row))
    return EXACT if distance == 0 else ADJACENT if distance == 1 else WRONG
