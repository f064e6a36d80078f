"""Test images on two sides of a split that are the same picture, saved again: found by thumbnails."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from sage_trl.data.checks.findings import Finding, warning
from sage_trl.data.checks.pictures import Picture
from sage_trl.data.checks.rows import GroupNote

# Grey levels. Another compression, size or format moves a 32x32 thumbnail by less; another photo of the same kind of
# part moves it by more, unless the photos are as good as identical.
MAX_RMS = 1.0
MAX_DIFFERENCE = 8
_CHUNK = 512


def near_duplicates(groups: Sequence[GroupNote], pictures: Mapping[str, Picture], path: Path) -> Iterator[Finding]:
    """Pairs of test images of one category in different splits that look alike and differ in their bytes."""
    by_category: dict[str, list[GroupNote]] = {}
    for group in groups:
        if group.category is not None and group.images.get("test_image") in pictures:
            by_category.setdefault(group.category, []).append(group)
    for members in by_category.values():
        yield from _within(members, pictures, path)


def _within(members: Sequence[GroupNote], pictures: Mapping[str, Picture], path: Path) -> Iterator[Finding]:
    found = [pictures[group.images["test_image"]] for group in members]
    thumbnails = np.stack([picture.thumbnail.ravel() for picture in found]).astype(np.float32)
    # About their mean, or the squares of bright pictures leave no digits for small differences.
    thumbnails -= thumbnails.mean(axis=0)
    squares = (thumbnails**2).sum(axis=1)
    limit = MAX_RMS**2 * thumbnails.shape[1]
    splits = np.unique([group.split or "" for group in members], return_inverse=True)[1]
    told: set[int] = set()
    for start in range(0, len(members), _CHUNK):
        stop = min(start + _CHUNK, len(members))
        distances = squares[start:stop, None] + squares[None] - 2 * thumbnails[start:stop] @ thumbnails.T
        close = (distances <= limit) & (splits[start:stop, None] != splits[None])
        for row, column in zip(*np.nonzero(close), strict=True):
            one, other = int(row) + start, int(column)
            if other >= one or one in told or found[one].sha256 == found[other].sha256:
                continue
            if np.abs(thumbnails[one] - thumbnails[other]).max() > MAX_DIFFERENCE:
                continue
            told.add(one)
            problem = f"looks the same as {members[other].images['test_image']} in split {members[other].split!r}"
            yield warning(
                "near-duplicate",
                path,
                f"{problem}, line {members[other].line}",
                "if both show one part, keep them on one side of the split",
                line=members[one].line,
                field="test_image",
                value=members[one].images["test_image"],
            )
