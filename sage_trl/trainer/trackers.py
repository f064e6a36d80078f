"""Experiment trackers (`report_to`) that cannot end a training: the first failure is told, and training goes on."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

from transformers import TrainerCallback
from transformers.integrations import get_reporting_integration_callbacks

logger = logging.getLogger(__name__)


class GuardedTracker:
    """Hands every event of the `Trainer` to a tracker's callback until it fails once.

    Args:
        tracker: the callback of `report_to`.
    """

    def __init__(self, tracker: TrainerCallback) -> None:
        self.name = type(tracker).__name__.removesuffix("Callback")
        self._tracker: TrainerCallback | None = tracker

    def __getattr__(self, name: str) -> Any:
        """The method of an event."""
        if not name.startswith("on_"):
            raise AttributeError(name)
        return partial(self._hand_on, name)

    def _hand_on(self, event: str, *args: Any, **kwargs: Any) -> Any:
        if self._tracker is None:
            return None
        try:
            return getattr(self._tracker, event)(*args, **kwargs)
        except Exception as error:
            self._tracker = None
            logger.warning(
                "report_to: %s failed and gets nothing more; training goes on, and metrics.jsonl has every figure. "
                "It said: %s: %s",
                self.name,
                type(error).__name__,
                error,
            )
            return None


def guard_trackers(trainer: Any) -> None:
    """Put the guard around every tracker that `report_to` gave a trainer."""
    kinds = tuple(get_reporting_integration_callbacks(trainer.args.report_to))
    handler = trainer.callback_handler
    handler.callbacks = [GuardedTracker(one) if isinstance(one, kinds) else one for one in handler.callbacks]
