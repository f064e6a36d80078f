"""Floating-point operations of a step, counted as it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

aten = torch.ops.aten


class CountedWork(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts multiplications of matrices, convolutions and attention, by torch's formulas, where it is switched on."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0
        self._is_paused = False

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count what runs inside."""
        with self:
            yield

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out what runs inside."""
        self._is_paused = True
        try:
            yield
        finally:
            self._is_paused = False

    def __torch_dispatch__(self, operation: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = operation(*args, **kwargs)
        if not self._is_paused:
            self.flops += _flops(operation._overloadpacket, args, kwargs, result)
        return result


def _flops(operation: Any, args: Any, kwargs: Any, result: Any) -> int:
    # torch has no formula for the attention of the CPU.
    if operation is aten._scaled_dot_product_flash_attention_for_cpu:
        return int(sdpa_flop_count(*(tensor.shape for tensor in args[:3])))  # type: ignore[no-untyped-call]
    if operation is aten._scaled_dot_product_flash_attention_for_cpu_backward:
        return int(sdpa_backward_flop_count(*(tensor.shape for tensor in args[:4])))  # type: ignore[no-untyped-call]
    formula = flop_registry.get(operation)
    return 0 if formula is None else int(formula(*args, **kwargs, out_val=result))
