"""Which rows each process has in each step: by a number of rows, or by a budget of tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from datasets import Dataset
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import Sampler

from sage_trl.errors import DataError
from sage_trl.trainer.balance import Piece, Share, divide, load, spread
from sage_trl.trainer.collators import FILLER
from sage_trl.trainer.tree_sizes import TreeSize


class StepPlan(Protocol):
    """The steps of every epoch; the same for all processes."""

    processes: int

    def steps(self, epoch: int) -> Iterator[list[Share]]:
        """The share of every process, step by step."""

    def __len__(self) -> int:
        """Steps of an epoch."""


class RowSteps:
    """Steps of `rows_per_step` rows, the last with what is left.

    Which rows make a step depends on their number and the seed alone, not on how many processes divide them.

    Args:
        sizes: of all groups.
        rows_per_step: rows of all processes together.
        processes: how many divide a step.
        seed: of the order of the groups, to which the epoch is added, as in `GroupSampler`; None keeps their order.
        drop_last: leave out what is left in the end.
    """

    def __init__(
        self,
        sizes: Sequence[TreeSize],
        rows_per_step: int,
        processes: int,
        *,
        seed: int | None,
        drop_last: bool = False,
    ) -> None:
        self.processes = processes
        self._sizes, self._rows_per_step, self._seed, self._drop_last = sizes, rows_per_step, seed, drop_last

    def steps(self, epoch: int) -> Iterator[list[Share]]:
        """See `StepPlan`."""
        order = list(range(len(self._sizes)))
        if self._seed is not None:
            generator = torch.Generator().manual_seed(self._seed + epoch)
            order = torch.randperm(len(order), generator=generator).tolist()
        rows = [(self._sizes[group], row) for group in order for row in self._sizes[group].rows]
        for step in range(len(self)):
            of_groups: dict[TreeSize, list[int]] = {}
            for size, row in rows[step * self._rows_per_step : (step + 1) * self._rows_per_step]:
                of_groups.setdefault(size, []).append(row)
            yield divide([Piece(size, tuple(taken)) for size, taken in of_groups.items()], self.processes)

    def __len__(self) -> int:
        rows = sum(len(size.rows) for size in self._sizes)
        return rows // self._rows_per_step if self._drop_last else -(-rows // self._rows_per_step)


class TokenSteps:
    """Steps of batches of whole groups whose trees, filled up to the longest, hold at most `budget` tokens.

    The batches are made once from groups in random order, so that every epoch has as many. Batches of about equal size
    make a step; each epoch takes the steps in a new order. Where the last step lacks batches, its rows are divided
    among the processes.

    Args:
        sizes: of all groups.
        budget: tokens of a batch.
        processes: how many take a batch in each step.
        seed: of both orders; the epoch is added to that of the steps.

    Raises:
        DataError: a tree that is larger than the budget by itself.
    """

    def __init__(self, sizes: Sequence[TreeSize], budget: int, processes: int, *, seed: int) -> None:
        largest = max(sizes, key=lambda size: size.tokens)
        if largest.tokens > budget:
            problem = (
                f"max_tokens_per_batch is {budget}, but group {largest.group_id} alone has {largest.tokens} tokens"
            )
            raise DataError(f"{problem}\n  remedy: raise it to {largest.tokens} at least, or split the group")
        self.processes = processes
        self._seed = seed
        batches: list[Share] = [[]]
        generator = torch.Generator().manual_seed(seed)
        for index in torch.randperm(len(sizes), generator=generator).tolist():
            piece = Piece(sizes[index], sizes[index].rows)
            if load([*batches[-1], piece]) > budget:
                batches.append([])
            batches[-1].append(piece)
        if processes > 1:
            batches.sort(key=load, reverse=True)
        self._steps = [batches[start : start + processes] for start in range(0, len(batches), processes)]
        self._steps[-1] = spread([*self._steps[-1], *([] for _ in range(processes - len(self._steps[-1])))])

    def steps(self, epoch: int) -> Iterator[list[Share]]:
        """See `StepPlan`."""
        generator = torch.Generator().manual_seed(self._seed + epoch)
        for step in torch.randperm(len(self._steps), generator=generator).tolist():
            yield self._steps[step]

    def __len__(self) -> int:
        return len(self._steps)


class ProcessBatches(Sampler[list[int]]):
    """One process's batch of every step, as indices into `RowsAndFillers`.

    A process without a row in a step, because there are fewer rows than processes, gets a filler, which counts nowhere:
    all processes take part in every step.

    Args:
        plan: the steps.
        process: the process.
        num_rows: rows of the dataset.
    """

    def __init__(self, plan: StepPlan, process: int, num_rows: int) -> None:
        self.epoch = 0
        self._plan, self._process, self._num_rows = plan, process, num_rows

    def set_epoch(self, epoch: int) -> None:
        """Choose the order; accelerate and the `Trainer` call it, so a resumed run goes on in the order it had."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        for shares in self._plan.steps(self.epoch):
            rows = [row for piece in shares[self._process] for row in piece.rows]
            if not rows:
                smallest = min((piece for share in shares for piece in share), key=lambda piece: piece.tokens)
                rows = [self._num_rows + smallest.rows[0]]
            yield rows

    def __len__(self) -> int:
        return len(self._plan)


class RowsAndFillers(TorchDataset[dict[str, Any]]):
    """A dataset's rows, and behind them the same rows once more as fillers."""

    def __init__(self, rows: Dataset) -> None:
        self._rows = rows

    def __len__(self) -> int:
        """How many rows there are, without the fillers."""
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[dict[str, Any]]:
        rows = self._rows.__getitems__([index % len(self._rows) for index in indices])
        return [
            {**row, FILLER: True} if index >= len(self._rows) else row for index, row in zip(indices, rows, strict=True)
        ]
