"""What keeps a long training safe, in one class for both trainers."""

from __future__ import annotations

from typing import Any

from sage_trl.trainer.divergence import DivergenceGuard
from sage_trl.trainer.stop_on_signal import EvaluationStoppedError
from sage_trl.trainer.whole_checkpoints import WholeCheckpoints


class ReliableTraining(DivergenceGuard, WholeCheckpoints):
    """Comes first in the bases: whole checkpoints, none of weights that are not finite, and one when a signal asks."""

    callback_handler: Any
    control: Any

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
