"""Dividing the trees of a step among processes, so that none waits long for the fullest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from sage_trl.trainer.tree_sizes import TreeSize


@dataclass(frozen=True)
class Piece:
    """Rows of one group that stand in one batch, and so make one tree there.

    Attributes:
        size: the group.
        rows: indices of the rows, in order.
    """

    size: TreeSize
    rows: tuple[int, ...]

    @cached_property
    def tokens(self) -> int:
        """Tokens of the tree."""
        return self.size.tokens_of(self.rows)


# What one process gets of a step.
Share = list[Piece]


def load(share: Share) -> int:
    """Tokens that a batch has, filled up to its longest tree."""
    return len(share) * max((piece.tokens for piece in share), default=0)


def divide(pieces: Iterable[Piece], processes: int) -> list[Share]:
    """Give every process trees, so that the fullest has as few tokens as a greedy search finds.

    Groups stay whole where they can. One is split, and its images and prompt then computed twice, only where there are
    fewer groups than processes or where that makes the fullest process's batch smaller.

    Returns:
        The share of each process; an empty one only where there are fewer rows than processes.
    """
    shares: list[Share] = [[] for _ in range(processes)]
    for piece in sorted(pieces, key=lambda piece: -piece.tokens):
        min(shares, key=lambda share: load([*share, piece])).append(piece)
    return spread(shares)


def spread(shares: Sequence[Share]) -> list[Share]:
    """Move rows from the fullest share to the emptiest for as long as that makes the fuller of the two smaller."""
    shares = [list(share) for share in shares]
    while True:
        light = min(range(len(shares)), key=lambda index: load(shares[index]))
        can_give = [index for index in range(len(shares)) if sum(len(piece.rows) for piece in shares[index]) > 1]
        if not shares[light] and can_give:
            heavy = max(can_give, key=lambda index: load(shares[index]))
        else:
            heavy = max(range(len(shares)), key=lambda index: load(shares[index]))
        moves = [] if heavy == light else list(_moves(shares[heavy], shares[light]))
        best = min(moves, key=lambda pair: max(map(load, pair)), default=None)
        if best is None or (shares[light] and max(map(load, best)) >= load(shares[heavy])):
            return shares
        shares[heavy], shares[light] = best


def _moves(heavy: Share, light: Share) -> Iterator[tuple[Share, Share]]:
    """Both shares after each move of the last rows of a piece, or of all of them, that leaves the first some row."""
    for index, piece in enumerate(heavy):
        others = [*heavy[:index], *heavy[index + 1 :]]
        for kept in range(0 if others else 1, len(piece.rows)):
            moved = _joined(light, Piece(piece.size, piece.rows[kept:]))
            yield ([*others, Piece(piece.size, piece.rows[:kept])] if kept else others), moved


def _joined(share: Share, piece: Piece) -> Share:
    same = [other for other in share if other.size is piece.size]
    rows = sorted(row for one in (*same, piece) for row in one.rows)
    return [*(other for other in share if other.size is not piece.size), Piece(piece.size, tuple(rows))]


@dataclass(frozen=True)
class Imbalance:
    """How much fuller the fullest process is than the mean of all, in tokens with padding.

    Attributes:
        mean: over all steps, the tokens of the fullest processes over those of the mean ones; what a run takes longer
            than one in which the same tokens were divided evenly.
        worst: that of the worst step.
        steps: how many were looked at.
        split: share of the groups of a step that stand on more than one process.
    """

    mean: float
    worst: float
    steps: int
    split: float

    def __str__(self) -> str:
        return (
            f"tokens of the fullest process over the mean: {self.mean:.3f}, in the worst of {self.steps} steps "
            f"{self.worst:.3f}; {self.split:.0%} of the groups are split between processes"
        )


def imbalance(steps: Iterable[Sequence[Share]]) -> Imbalance:
    """That of steps, each with the share of every process.

    Raises:
        ValueError: no step.
    """
    fullest, means, groups, split = [], [], 0, 0
    for shares in steps:
        loads = [load(share) for share in shares]
        fullest.append(max(loads))
        means.append(sum(loads) / len(loads))
        pieces = [id(piece.size) for share in shares for piece in share]
        groups += len(set(pieces))
        split += sum(pieces.count(group) > 1 for group in set(pieces))
    if not fullest:
        raise ValueError("no step, and so no balance")
    worst = max(most / mean for most, mean in zip(fullest, means, strict=True))
    return Imbalance(sum(fullest) / sum(means), worst, len(fullest), split / groups)
