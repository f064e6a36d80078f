"""Where the segments of packed trees stand, as batches carry it."""

from __future__ import annotations

from torch import Tensor

Span = tuple[int, int, int]


def read_spans(tree_spans: Tensor) -> list[list[Span]]:
    """`[B, S, 3]` (start, stop, parent) of each row's segments, filled up with -1, as lists without the filling."""
    return [[(start, stop, parent) for start, stop, parent in row if start >= 0] for row in tree_spans.tolist()]
