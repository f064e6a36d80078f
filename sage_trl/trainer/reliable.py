"""What keeps a long training safe, in one class for both trainers."""

from __future__ import annotations

from typing import Any

from sage_trl.trainer.divergence import DivergenceGuard
from sage_trl.trainer.stop_on_signal import EvaluationStoppedError, StopOnSignal, leave_signals_to_the_trainer
from sage_trl.trainer.whole_checkpoints import WholeCheckpoints


class ReliableTraining(DivergenceGuard, WholeCheckpoints):
    """Comes first in the bases: whole checkpoints, none of weights that are not finite, and one when a signal asks."""

    callback_handler: Any
    control: Any
    model: Any
    is_sharded: bool

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """The `Trainer`'s, with several processes also after an evaluation.

        accelerate takes a model that an evaluation has prepared for one that is wrapped, and each process would train a
        model of its own.
        """
        if not self.is_sharded:
            vars(self.model).pop("_is_accelerate_prepared", None)
        return super().train(*args, **kwargs)  # type: ignore[misc]

    @property
    def _stop(self) -> StopOnSignal | None:
        """The callback that a signal has stopped, or None."""
        callbacks = self.callback_handler.callbacks
        return next((one for one in callbacks if isinstance(one, StopOnSignal) and one.has_stopped), None)

    def _get_dataloader(self, *args: Any, **kwargs: Any) -> Any:
        loader = super()._get_dataloader(*args, **kwargs)  # type: ignore[misc]
        leave_signals_to_the_trainer(loader)
        return loader

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        self.refuse_poisoned_weights()
        super()._save_checkpoint(model, trial)

    def _maybe_log_save_evaluate(
        self, tr_loss: Any, grad_norm: Any, model: Any, trial: Any, *args: Any, **kwargs: Any
    ) -> None:
        try:
            super()._maybe_log_save_evaluate(tr_loss, grad_norm, model, trial, *args, **kwargs)  # type: ignore[misc]
        except EvaluationStoppedError:
            self._save_checkpoint(model, trial)
            self.control = self.callback_handler.on_save(self.args, self.state, self.control)

    def _evaluate(self, *args: Any, skip_scheduler: bool = False, **kwargs: Any) -> Any:
        """The `Trainer`'s.

        Raises:
            StoppedError: a signal came during the evaluation of `eval_on_start`, before there is a step to save.
        """
        try:
            return super()._evaluate(*args, skip_scheduler=skip_scheduler, **kwargs)  # type: ignore[misc]
        except EvaluationStoppedError:
            # The `Trainer` skips the scheduler's step before the first step alone.
            if not skip_scheduler or self._stop is None:
                raise
            raise self._stop.error_before_first_step() from None

    def _load_best_model(self) -> None:
        # A run that a signal has stopped saves no model, and its grace period may be over.
        if self._stop is None:
            super()._load_best_model()  # type: ignore[misc]
