"""Picks the reference of a test image among normal images of its category and split."""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Sequence
from typing import Literal, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pairing = Literal["first", "random", "nearest", "given", "none"]
PAIRINGS: tuple[Pairing, ...] = get_args(Pairing)
Descriptor = NDArray[np.float32]
Key = TypeVar("Key", bound=Hashable)

# Side of the thumbnail that `nearest` compares: enough for pose and colours, too coarse for most defects.
THUMBNAIL = 16


def pick_reference(
    test: Key, pool: Sequence[Key], pairing: Pairing, seed: int, describe: Callable[[Key], Descriptor]
) -> Key | None:
    """The reference of a test image.

    Args:
        test: the test image.
        pool: normal images that no question is about, in a fixed order; none of them shows the same picture as `test`.
        pairing: `first` of the pool, one at `random` that depends on `seed` and `test` alone, the `nearest` by its
            descriptor, or `none`. `given` references come from the source and are not picked.
        seed: for `random`.
        describe: descriptor of an image, for `nearest`.

    Returns:
        A member of the pool; None for `none`, `given` or an empty pool.
    """
    if not pool or pairing in ("none", "given"):
        return None
    if pairing == "first":
        return pool[0]
    if pairing == "random":
        return random.Random(f"{seed} {test}").choice(pool)
    own = describe(test)
    return min(pool, key=lambda candidate: float(np.square(describe(candidate) - own).sum()))


def descriptor_of(picture: Image.Image) -> Descriptor:
    """What `nearest` compares: a thumbnail of the picture, `[3 * THUMBNAIL ** 2]`, 0-1."""
    small = picture.convert("RGB").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32).ravel() / np.float32(255)
