"""Ends a training run at the next step when the terminal or the scheduler asks for it, with a checkpoint saved."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from transformers import TrainerCallback

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopOnSignal(TrainerCallback):
    """Saves and stops after the step in which SIGINT or SIGTERM arrived; a second signal acts as it would without us.

    Attributes:
        received: the signal that has arrived, or None.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Replace the handlers of the signals while the body runs; in the main thread only."""
        self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        try:
            yield
        finally:
            self._restore()

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def on_step_end(self, _args: Any, _state: Any, control: Any, **_kwargs: Any) -> Any:
        """Ask the `Trainer` for a checkpoint and for the end."""
        if self.received is not None:
            control.should_save = True
            control.should_training_stop = True
        return control
