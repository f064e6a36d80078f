"""Sums over answers, whether each is a row of the batch or a leaf of a tree.

The fused head scores `[B, K]` positions: all of a row, or those of a tree's leaves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sage_trl.trainer.tree_batches import IGNORED, NO_LEAF


@dataclass(frozen=True)
class AnswerLayout:
    """Where the answers of a batch of pairs stand.

    Attributes:
        shift_labels: `[B, K]` the token that each scored position predicts, `IGNORED` outside answers.
        pair_leaves: `[pairs, 2]` the answers that each pair compares, chosen first.
        leaf_ids: `[B, K]` the answer that each belongs to, `NO_LEAF` outside; None where answer i is row i.
    """

    shift_labels: Tensor
    pair_leaves: Tensor
    leaf_ids: Tensor | None = None

    def sums(self, values: Tensor) -> Tensor:
        """`[B, K]` values of tokens, zero outside answers -> `[answers]`."""
        if self.leaf_ids is None:
            return values.sum(dim=1)
        inside = self.leaf_ids != NO_LEAF
        totals = values.new_zeros(int(self.pair_leaves.max()) + 1)
        return totals.index_add(0, self.leaf_ids[inside], values[inside])

    def tokens(self, values: Tensor) -> list[Tensor]:
        """`[B, K]` values of tokens -> those of each answer, in order."""
        return [values[self._owners() == answer] for answer in range(int(self.pair_leaves.max()) + 1)]

    def spread(self, answers: Sequence[Tensor]) -> Tensor:
        """The tokens of each answer -> `[B, K]`, zero outside answers; the reverse of `tokens`."""
        owners = self._owners()
        values = torch.zeros(owners.shape, dtype=answers[0].dtype, device=owners.device)
        for answer, tokens in enumerate(answers):
            values[owners == answer] = tokens.to(values.device)
        return values

    def _owners(self) -> Tensor:
        if self.leaf_ids is not None:
            return self.leaf_ids
        rows = torch.arange(len(self.shift_labels), device=self.shift_labels.device)[:, None]
        return rows.expand_as(self.shift_labels).masked_fill(self.shift_labels == IGNORED, NO_LEAF)

    def pairs(self, answers: Tensor) -> tuple[Tensor, Tensor]:
        """`[answers]` -> those of chosen and rejected, `[pairs]` each."""
        chosen, rejected = answers[self.pair_leaves].unbind(dim=1)
        return chosen, rejected


def answer_layout(inputs: Mapping[str, Tensor]) -> AnswerLayout:
    """The layout of a batch that `EntropyDPOCollator` made, as trees or row by row."""
    if "leaf_ids" in inputs:
        return AnswerLayout(inputs["shift_labels"], inputs["pair_leaves"], inputs["leaf_ids"])
    labels = inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, IGNORED)
    rows = torch.arange(len(labels), device=labels.device)
    return AnswerLayout(torch.nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED), rows.view(2, -1).T)
