"""The processes that share one evaluation under `accelerate launch`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from accelerate import PartialState

# The others wait while the first one judges replies, which may take long.
_PATIENCE = timedelta(days=30)


@dataclass(frozen=True)
class Processes:
    """This process among those that share the work.

    Attributes:
        index: which one this is; 0 writes what is written once.
        count: how many there are.
        device: where this one's models run.
        wait_for_all: returns once every process has called it as often as this one.
    """

    index: int
    count: int
    device: torch.device
    wait_for_all: Callable[[], None]

    @property
    def is_first(self) -> bool:
        """Whether this is the process that gathers, measures and reports."""
        return self.index == 0


ALONE = Processes(0, 1, torch.device("cpu"), lambda: None)


@contextmanager
def launched_processes() -> Iterator[Processes]:
    """The processes that `accelerate launch` started; one process, on the machine's accelerator, without it."""
    state = PartialState(timeout=_PATIENCE)
    yield Processes(state.process_index, state.num_processes, state.device, state.wait_for_everyone)
    if state.num_processes > 1:
        state.destroy_process_group()
