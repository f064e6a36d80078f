"""Stops a training that diverges on all processes before the optimizer step, with the rows of the batch on file."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate.utils import DistributedType
from torch import Tensor

from sage_trl.errors import DivergedError
from sage_trl.storage import write_json
from sage_trl.trainer.agreement import from_all_processes, largest
from sage_trl.trainer.collators import ROW_IDS, FactCollator

_REMEDY = "look at these rows, lower learning_rate or max_grad_norm, or warm up longer; checkpoints before are sound"


class DivergenceGuard:
    """Comes before a TRL trainer in the bases.

    Under DeepSpeed, whose backward pass takes the step itself, the loss is looked at before it, micro-batch by
    micro-batch; elsewhere loss and gradient just before the step.
    """

    args: Any
    state: Any
    model: Any
    accelerator: Any
    data_collator: Any
    _rows: list[str] | None = None
    _micro_batches: deque[tuple[list[str] | None, Tensor]] | None = None

    def get_train_dataloader(self) -> Any:
        """TRL's, of batches that name their rows."""
        collator = self.data_collator
        if isinstance(collator, FactCollator):
            self.data_collator = replace(collator, with_row_ids=True)
        try:
            return super().get_train_dataloader()  # type: ignore[misc]
        finally:
            self.data_collator = collator

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        self._rows = inputs.pop(ROW_IDS, None)
        prepared: dict[str, Any] = super()._prepare_inputs(inputs)  # type: ignore[misc]
        return prepared

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """TRL's loss, remembered until the step.

        Raises:
            DivergedError: under DeepSpeed, the loss is not finite.
        """
        result = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)  # type: ignore[misc]
        if self.model.training:
            if self._micro_batches is None:
                self._micro_batches = deque(maxlen=self.args.gradient_accumulation_steps)
            loss = result[0] if return_outputs else result
            self._micro_batches.append((self._rows, loss.detach()))
            if self.accelerator.distributed_type == DistributedType.DEEPSPEED:
                self._refuse_divergence(None)
        return result

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm)  # type: ignore[misc]
        # A loss scale for fp16 is found by stepping back from gradients that overflow.
        has_scaler = getattr(self.accelerator, "scaler", None) is not None
        self._refuse_divergence(None if has_scaler or norm is None else float(norm))
        if self._micro_batches is not None:
            self._micro_batches.clear()
        return norm

    def _refuse_divergence(self, norm: float | None) -> None:
        losses = [(rows, float(loss)) for rows, loss in self._micro_batches or ()]
        found = [not math.isfinite(loss) for _, loss in losses], norm is not None and not math.isfinite(norm)
        bad_loss, bad_norm = largest([int(any(found[0])), int(found[1])])
        if not bad_loss and not bad_norm:
            return
        batches: list[dict[str, Any]] = [{"loss": str(loss), "rows": rows} for rows, loss in losses]
        processes: list[dict[str, Any]] = from_all_processes(
            {"batches": batches, "gradient_norm": None if norm is None else str(norm)}
        )
        step = self.state.global_step + 1
        path = Path(self.args.output_dir) / f"diverged-step-{step}.json"
        if self.args.process_index == 0:
            write_json(path, {"step": step, "processes": processes})
        values = [batch["loss"] for one in processes for batch in one["batches"]]
        value = next((text for text in values if not math.isfinite(float(text))), None)
        problem = f"the gradient of step {step} is {norm}" if value is None else f"the loss of step {step} is {value}"
        raise DivergedError(f"{problem}; the rows of its batch are in {path}\n  remedy: {_REMEDY}")

    def refuse_poisoned_weights(self) -> None:
        """Look at what would be saved: an update by a finite gradient can overflow.

        Raises:
            DivergedError: a trained weight is not finite; nothing was saved.
        """
        trained = [(name, one.detach()) for name, one in self.model.named_parameters() if one.requires_grad]
        local = ((name, one.to_local() if hasattr(one, "to_local") else one) for name, one in trained)
        bad = next((name for name, one in local if not bool(one.isfinite().all())), None)
        told = [name for name in from_all_processes(bad) if name is not None]
        if told:
            problem = f"after step {self.state.global_step} {told[0]} is not finite, and is not saved"
            raise DivergedError(f"{problem}\n  remedy: lower learning_rate or max_grad_norm, or warm up longer")
