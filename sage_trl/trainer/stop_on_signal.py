"""Ends a training run at the next step when the terminal or the scheduler asks for it, with a checkpoint saved."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from threading import Thread
from types import FrameType
from typing import Any

from transformers import TrainerCallback

from sage_trl.errors import StoppedError
from sage_trl.trainer.agreement import largest

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
# A launcher hands on the Ctrl-C that its workers had from the terminal already.
_SAME_KEY_PRESS_SECONDS = 3.0


class EvaluationStoppedError(Exception):
    """An evaluation in the middle of training was given up, for a signal asks for a checkpoint now."""


class StopOnSignal(TrainerCallback):
    """Saves and stops after the step in which SIGINT, SIGTERM or SIGUSR1 reached one of the processes.

    Before the first step a signal ends the run at once. Schedulers repeat theirs: SIGTERM and SIGUSR1 count once; a
    second Ctrl-C ends the run without saving.

    Attributes:
        received: the signal that has arrived here or, once agreed upon, elsewhere, or None.
        has_stopped: whether all processes have agreed to stop.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.has_stopped = False
        self._is_training = False
        self._noted_at = 0.0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Replace the handlers of the signals while the body runs; in the main thread only."""
        before = {number: signal.signal(number, self._note) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def error(self, step: int) -> StoppedError:
        """The error to end the run with, once it has stopped after a step."""
        assert self.received is not None
        remedy = "the same command with --resume goes on from there"
        return self._error(f"stopped by {self.received.name} after step {step}, which is saved\n  remedy: {remedy}")

    def error_before_first_step(self) -> StoppedError:
        """The error to end the run with while there is nothing to save."""
        assert self.received is not None
        return self._error(f"stopped by {self.received.name} before the first step; nothing is lost")

    def _error(self, problem: str) -> StoppedError:
        # SIGUSR1 is how schedulers announce a SIGTERM, and ends as one.
        number = signal.SIGINT if self.received == signal.SIGINT else signal.SIGTERM
        return StoppedError(problem, number)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.received is None:
            self.received, self._noted_at = signal.Signals(number), time.monotonic()
            if not self._is_training:
                raise self.error_before_first_step()
        elif number == signal.SIGINT and time.monotonic() - self._noted_at > _SAME_KEY_PRESS_SECONDS:
            raise KeyboardInterrupt

    def on_train_begin(self, _args: Any, _state: Any, _control: Any, **_kwargs: Any) -> None:
        """From here on there is something to save."""
        self._is_training = True

    def on_step_end(self, _args: Any, _state: Any, control: Any, **_kwargs: Any) -> Any:
        """Ask the `Trainer` for a checkpoint and for the end, without the evaluation that may be due."""
        if self._is_agreed():
            control.should_save = True
            control.should_evaluate = False
            control.should_training_stop = True
        return control

    def on_prediction_step(self, _args: Any, _state: Any, control: Any, **_kwargs: Any) -> Any:
        """Give up an evaluation: it may outlast the grace period.

        Raises:
            EvaluationStoppedError: for `ReliableTraining`, which saves.
        """
        if self._is_agreed():
            control.should_training_stop = True
            raise EvaluationStoppedError
        return control

    def on_save(self, _args: Any, _state: Any, control: Any, **_kwargs: Any) -> Any:
        """End after a checkpoint during which the signal came."""
        if self._is_agreed():
            control.should_training_stop = True
        return control

    def _is_agreed(self) -> bool:
        [number] = largest([0 if self.received is None else int(self.received)])
        if number:
            self.received, self.has_stopped = signal.Signals(number), True
        return self.has_stopped


def leave_signals_to_the_trainer(loader: Any) -> None:
    """Let a loader's workers outlive a signal to the process group, of which torch's own handler would let them die.

    Args:
        loader: a data loader, prepared by accelerate or not, of which no worker has started yet.
    """
    plain = getattr(loader, "base_dataloader", loader)
    plain.worker_init_fn = partial(_start_worker, os.getpid(), plain.worker_init_fn)


def _start_worker(trainer: int, prepare: Callable[[int], None] | None, worker: int) -> None:
    for number in SIGNALS:
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # macOS has none
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        Thread(target=_end_with, args=(trainer,), daemon=True).start()
    if prepare is not None:
        prepare(worker)


def _end_with(trainer: int) -> None:
    """End this process by a SIGTERM of the one that trains, which so ends workers that it leaves behind."""
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != trainer:
        pass
    os._exit(0)
