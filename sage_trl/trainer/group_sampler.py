"""Rows of a group one after the other, groups in a new order every epoch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch.utils.data import Sampler


def rows_by_group(group_ids: Iterable[str]) -> dict[str, list[int]]:
    """Group -> indices of its rows, both in the order of the rows."""
    groups: dict[str, list[int]] = {}
    for index, group in enumerate(group_ids):
        groups.setdefault(group, []).append(index)
    return groups


class GroupSampler(Sampler[int]):
    """Indices of rows; a batch of neighbours then shares images and prompts.

    Args:
        group_ids: the group of each row.
        seed: seed of the order; the epoch is added to it.
    """

    def __init__(self, group_ids: Sequence[str], seed: int) -> None:
        self.seed = seed
        self.epoch = 0
        self._groups = list(rows_by_group(group_ids).values())

    def set_epoch(self, epoch: int) -> None:
        """Choose the order; accelerate calls it, so a resumed run goes on in the order it had."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        for group in torch.randperm(len(self._groups), generator=generator).tolist():
            yield from self._groups[group]

    def __len__(self) -> int:
        return sum(len(group) for group in self._groups)
