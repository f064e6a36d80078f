"""References: first, random by seed, nearest by its descriptor, none."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from PIL import Image

from sage_trl.data.pairing import descriptor_of, pick_reference

SHADES = {"dark": 20, "grey": 120, "light": 220, "asked": 130}
POOL = ("dark", "grey", "light")


def describe(name: str) -> np.ndarray:
    return descriptor_of(Image.new("RGB", (64, 48), (SHADES[name],) * 3))


def test_each_way() -> None:
    assert pick_reference("asked", POOL, "first", 0, describe) == "dark"
    assert pick_reference("asked", POOL, "nearest", 0, describe) == "grey"
    assert pick_reference("asked", POOL, "none", 0, describe) is None
    assert pick_reference("asked", POOL, "given", 0, describe) is None
    assert pick_reference("asked", (), "random", 0, describe) is None


def test_random_depends_on_seed_and_image_alone() -> None:
    drawn = [pick_reference(f"p{number}", POOL, "random", 3, describe) for number in range(300)]
    assert drawn == [pick_reference(f"p{number}", POOL, "random", 3, describe) for number in range(300)]
    assert drawn != [pick_reference(f"p{number}", POOL, "random", 4, describe) for number in range(300)]
    assert all(70 < count < 130 for count in Counter(drawn).values())  # 100 each, give or take


def test_descriptor() -> None:
    assert describe("grey").shape == (768,)
    assert describe("grey") == pytest.approx(120 / 255)
