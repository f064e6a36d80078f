"""Divides photos among splits, whole units together, and says which normal photos serve as references."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

from sage_trl.data.sources.photos import NORMAL, Photo
from sage_trl.errors import DataError

Item = TypeVar("Item", bound=Hashable)


class Placed(Protocol):
    """What has a split."""

    @property
    def split(self) -> str | None: ...


def split_units(units: Mapping[Item, Counter[Hashable]], shares: Mapping[str, float], seed: int) -> dict[Item, str]:
    """A split for each unit, such that each split has about its share of every stratum.

    Args:
        units: unit -> how many photos of each stratum it has.
        shares: split -> share; they add up to 1.
        seed: decides among equals.

    Returns:
        Unit -> split. Large units come first, each goes where it is missed most.
    """
    total: Counter[Hashable] = Counter()
    for count in units.values():
        total.update(count)
    given: dict[str, Counter[Hashable]] = {split: Counter() for split in shares}

    def excess(split: str, count: Counter[Hashable]) -> float:
        """By how much the squared distance from the split's shares grows with the unit."""
        own, share = given[split], shares[split]
        return sum(n * (n + 2 * (own[stratum] - share * total[stratum])) for stratum, n in count.items())

    order = sorted(units, key=str)
    random.Random(seed).shuffle(order)
    chosen: dict[Item, str] = {}
    for unit in sorted(order, key=lambda unit: -units[unit].total()):
        count = units[unit]
        chosen[unit] = min(shares, key=lambda split: excess(split, count))
        given[chosen[unit]].update(count)
    return chosen


def splits_of(shares: Iterable[str], placed: Iterable[Placed], capped: Iterable[str]) -> list[str]:
    """The splits that there are, those with a share first.

    Args:
        shares: splits with a share.
        placed: what is in a split.
        capped: splits that the user names.

    Raises:
        DataError: the user names a split that is not there.
    """
    splits = list(dict.fromkeys([*shares, *(str(item.split) for item in placed)]))
    unknown = set(capped) - set(splits)
    if unknown:
        raise DataError(f"split {min(unknown)!r} is unknown\n  remedy: use some of {', '.join(splits)}")
    return splits


def connected_units(groups: Iterable[Sequence[str]]) -> dict[str, str]:
    """Member -> unit, where whatever shares a group is one unit, named after its first member in the alphabet."""
    parents: dict[str, str] = {}

    def find(member: str) -> str:
        parents.setdefault(member, member)
        while parents[member] != member:
            parents[member] = parents[parents[member]]
            member = parents[member]
        return member

    for group in groups:
        roots = sorted(find(member) for member in group)
        for root in roots[1:]:
            parents[root] = roots[0]
    return {member: find(member) for member in parents}


def assign_splits(photos: Sequence[Photo], shares: Mapping[str, float], seed: int) -> list[Photo]:
    """The photos with splits: those that their source says, and `shares` of the others.

    Photos that are only references are divided among the splits that ask about their category: one each, then by share.
    """
    units: defaultdict[Hashable, Counter[Hashable]] = defaultdict(Counter)
    for photo in photos:
        if photo.split is None and not photo.is_reference:
            # Strata smaller than a split's share would all go to one split; the wider ones even that out.
            units[photo.unit].update([(photo.category, photo.label), photo.category, photo.label == NORMAL, "all"])
    splits = split_units(units, shares, seed)
    placed = [photo if photo.split else replace(photo, split=splits.get(photo.unit)) for photo in photos]
    asked: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for photo in placed:
        if photo.split is not None and not photo.is_reference:
            asked[photo.category][photo.split] += 1
    return _with_references(placed, asked, seed)


def _with_references(photos: Sequence[Photo], asked: Mapping[str, Counter[str]], seed: int) -> list[Photo]:
    waiting: defaultdict[str, list[int]] = defaultdict(list)
    for index, photo in enumerate(photos):
        if photo.split is None:
            waiting[photo.category].append(index)
    placed = list(photos)
    for category, indices in waiting.items():
        questions = asked.get(category, Counter({"train": 1}))
        random.Random(f"{seed} {category}").shuffle(indices)
        given: Counter[str] = Counter()
        for index in indices:
            # A split without any reference yet comes first, then the one with most questions per reference.
            split = min(questions, key=lambda split: (given[split] > 0, -questions[split] / (given[split] + 1)))
            given[split] += 1
            placed[index] = replace(photos[index], split=split)
    return placed


def set_references_aside(photos: Sequence[Photo], defective_share: float, seed: int) -> list[Photo]:
    """Mark normal photos as references where a category of a split has none.

    About as many normal photos stay test images as make `defective_share` of the questions defective, at most half.
    """
    strata: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    defective: Counter[tuple[str, str]] = Counter()
    has_references: set[tuple[str, str]] = set()
    for index, photo in enumerate(photos):
        key = photo.category, str(photo.split)
        if photo.is_reference:
            has_references.add(key)
        elif photo.label == NORMAL:
            strata[key].append(index)
        else:
            defective[key] += 1
    marked = list(photos)
    for key, indices in strata.items():
        if key in has_references:
            continue
        wanted = round(defective[key] * (1 - defective_share) / defective_share)
        random.Random(f"{seed} {key}").shuffle(indices)
        for index in indices[min(wanted, len(indices) // 2) :]:
            marked[index] = replace(photos[index], is_reference=True)
    return marked
