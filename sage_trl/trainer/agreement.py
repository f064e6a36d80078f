"""What all processes of a training must know before any of them goes on: an error, a value, a signal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object

from sage_trl.errors import SageError

Value = TypeVar("Value")


def from_main_process(action: Callable[[], Value]) -> Value:
    """What `action` returns, or the `SageError` that it raises, on the main process; all processes get it."""
    state = PartialState()
    outcome: list[Any] = [None, None]
    if state.is_main_process:
        try:
            outcome[0] = action()
        except SageError as error:
            outcome[1] = error
    if state.num_processes > 1:
        broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise outcome[1]
    value: Value = outcome[0]
    return value


def from_all_processes(value: Value) -> list[Value]:
    """The values of all processes, in their order."""
    if PartialState().num_processes == 1:
        return [value]
    values: list[Value] = gather_object([value])
    return values


def largest(values: list[int]) -> list[int]:
    """The largest over all processes of each number."""
    state = PartialState()
    if state.num_processes == 1:
        return values
    tensor = torch.tensor(values, device=state.device)
    torch.distributed.all_reduce(tensor, op=torch.distributed.ReduceOp.MAX)
    found: list[int] = tensor.tolist()
    return found
