"""Splits by share of every stratum, units whole, references for every split that asks."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from sage_trl.data.sources.division import assign_splits, connected_units, set_references_aside, split_units
from sage_trl.data.sources.photos import NORMAL, Photo

SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}


def photo(number: int, label: str = NORMAL, **fields) -> Photo:
    return Photo(f"p{number}", Path(f"{number}.png"), "plate", label, f"p{number}", **fields)


def test_shares() -> None:
    units = {number: Counter({("plate", number % 2): 1}) for number in range(200)}
    splits = split_units(units, SHARES, 0)
    counts = Counter((split, number % 2) for number, split in splits.items())
    assert counts == {(s, p): n for s, n in (("train", 80), ("validation", 10), ("test", 10)) for p in (0, 1)}
    assert split_units(units, SHARES, 1) != splits


def test_units_by_hand() -> None:
    units = connected_units([["a", "b"], ["c"], ["b", "d"], ["e", "c"]])
    assert units == {"a": "a", "b": "a", "d": "a", "c": "c", "e": "c"}


def test_every_split_gets_a_reference_before_any_gets_two() -> None:
    photos = [photo(n, "scratch") for n in range(20)] + [photo(100 + n, is_reference=True) for n in range(3)]
    placed = assign_splits(photos, SHARES, 0)
    assert {p.split for p in placed if p.is_reference} == set(SHARES)
    more = assign_splits(photos + [photo(200 + n, is_reference=True) for n in range(17)], SHARES, 0)
    assert Counter(p.split for p in more if p.is_reference) == {"train": 16, "validation": 2, "test": 2}


def test_normal_photos_become_references() -> None:
    photos = [photo(n, "scratch", split="train") for n in range(6)]
    photos += [photo(100 + n, split="train") for n in range(20)]
    marked = set_references_aside(photos, 0.6, 0)
    # 6 / 0.6 - 6 = 4 normal ones are asked about, 16 are references.
    assert Counter((p.label, p.is_reference) for p in marked) == {
        ("scratch", False): 6,
        (NORMAL, False): 4,
        (NORMAL, True): 16,
    }
    few = set_references_aside([*photos[:6], *photos[6:9]], 0.6, 0)
    assert sum(p.is_reference for p in few) == 2
