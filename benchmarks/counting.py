"""Floating-point operations of a step, and the share of them that the language model's head takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from trl.trainer.utils import _CHUNKED_LOGPROB_CHUNK_SIZE

from sage_trl.planning.counted_work import CountedWork


@dataclass(frozen=True)
class Work:
    """Floating-point operations of one step, and those of them in the head."""

    total: int
    head: int

    @property
    def head_share(self) -> float:
        """The head's share of the work."""
        return self.head / self.total


class _CountedHead(CountedWork):
    """Tells apart what has `vocab_size` as a side, or that of a piece in which TRL's fused head takes it.

    torch's own `FlopCounterMode` follows the modules too; beside checkpoints it holds more memory than the step.
    """

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.head = 0
        self._sides = {min(vocab_size, _CHUNKED_LOGPROB_CHUNK_SIZE), vocab_size % _CHUNKED_LOGPROB_CHUNK_SIZE} - {0}

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = self.flops
        result = super().__torch_dispatch__(operation, types, args, kwargs)
        tensors = (each for each in (*args, result) if isinstance(each, torch.Tensor))
        if any(self._sides.intersection(tensor.shape) for tensor in tensors):
            self.head += self.flops - before
        return result


def count_work(step: Callable[[], Any], vocab_size: int) -> Work:
    """Run a step and count its multiplications of matrices; those with the vocabulary as a side are the head's."""
    work = _CountedHead(vocab_size)
    with work.counting():
        step()
    return Work(work.flops, work.head)
