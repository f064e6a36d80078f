"""Floating-point operations of a step, and the share of them that the language model's head takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import (
    FlopCounterMode,
    addmm_flop,
    bmm_flop,
    mm_flop,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

aten = torch.ops.aten


@dataclass(frozen=True)
class Work:
    """Floating-point operations of one step, and those of them in the head."""

    total: int
    head: int

    @property
    def head_share(self) -> float:
        """The head's share of the work."""
        return self.head / self.total


def count_work(step: Callable[[], Any], vocab_size: int) -> Work:
    """Run a step and count its multiplications of matrices; those with `vocab_size` as a side are the head's."""
    head = 0

    def counting(formula: Callable[..., int]) -> Callable[..., int]:
        def count(*shapes: Any, out_shape: Any = None, **_: Any) -> int:
            nonlocal head
            operations = formula(*shapes)
            if any(isinstance(shape, torch.Size) and vocab_size in shape for shape in (*shapes, out_shape)):
                head += operations
            return operations

        return count

    def attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        return sdpa_flop_count(query, key, value)

    def attention_backward(grad: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        return sdpa_backward_flop_count(grad, query, key, value)

    # The counter of torch knows no attention on the CPU.
    mapping = {
        aten.mm: counting(mm_flop),
        aten.addmm: counting(addmm_flop),
        aten.bmm: counting(bmm_flop),
        aten._scaled_dot_product_flash_attention_for_cpu: attention,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward,
    }
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        step()
    return Work(counter.get_total_flops(), head)
