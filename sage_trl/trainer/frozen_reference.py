"""pi_ref of E-DPO: a second model, a frozen copy of the adapter, or what either said before, from disk."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import tqdm
from torch import Tensor, nn
from transformers.utils import is_flash_attn_2_available

from sage_trl.errors import DataError
from sage_trl.models.adapters import is_adapted, reference_adapter, unwrapped
from sage_trl.trainer.answers import AnswerLayout, answer_layout
from sage_trl.trainer.reference_cache import ReferenceCache, reference_sha256


class NoReference(nn.Module):
    """Stands in for a reference model while TRL builds its trainer, which would load a second model from the hub.

    Args:
        config: the policy's configuration.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    def forward(self) -> None:
        """Never called: the trainer drops the stand-in."""
        raise NotImplementedError("this stands in for a reference model")


class FrozenReferenceMixin:
    """Comes before a TRL DPO trainer in the bases.

    Attributes:
        reference_cache: where log-probabilities are kept, or None.
    """

    model: Any
    ref_model: Any
    args: Any
    accelerator: Any
    reference_cache: ReferenceCache | None

    def open_reference_cache(self) -> ReferenceCache:
        reference = self.model if self.ref_model is None else self.ref_model
        plain = unwrapped(reference)
        identity = {
            "weights": reference_sha256(reference),
            "attention": plain.config.get_text_config()._attn_implementation,
            "shared_prefix": self.args.shared_prefix,
            "autocast": "bf16" if self.args.bf16 else "fp16" if self.args.fp16 else None,
            "device": self.accelerator.device.type,
            "torch": torch.__version__,
            "flash_attn": is_flash_attn_2_available(),
        }
        cache = ReferenceCache(Path(self.args.reference_cache), identity, self.accelerator.process_index)
        self.accelerator.wait_for_everyone()
        cache.read()
        return cache

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """TRL's training; where the policy itself is the reference, its log-probabilities are read first.

        See `Trainer.train`.
        """
        if self.reference_cache is not None and self.ref_model is None and not is_adapted(self.model):
            self._fill(self.reference_cache)
        return super().train(*args, **kwargs)  # type: ignore[misc]

    def _fill(self: Any, cache: ReferenceCache) -> None:
        """Read all answers with the policy, which before the first step is pi_ref."""
        loaders = [self.get_train_dataloader()]
        if self.eval_dataset is not None and not isinstance(self.eval_dataset, dict):
            loaders.append(self.get_eval_dataloader())
        was_training = self.model.training
        self.model.eval()
        for inputs in tqdm(itertools.chain(*loaders), desc="reference", disable=self.args.disable_tqdm):
            batch = self._prepare_inputs(inputs)
            layout = answer_layout(batch)
            if cache.find(batch["answer_keys"]) is None:
                with torch.no_grad(), self.compute_loss_context_manager():
                    log_probs = self.model(**self.scored_inputs(batch, layout)).log_probs
                cache.store(batch["answer_keys"], layout.tokens(log_probs))
        self.model.train(was_training)

    def reference_log_probs(
        self, model: Any, scored: dict[str, Any], layout: AnswerLayout, keys: Tensor | None
    ) -> Tensor:
        """Log-probabilities `[B, T]` of the labels under pi_ref, from the cache where it has all answers of the batch.

        Raises:
            DataError: the cache lacks an answer, and there is nothing to read it with.
        """
        if self.reference_cache is None or keys is None:
            return self._read(model, scored)
        found = self.reference_cache.find(keys)
        if found is not None:
            return layout.spread(found).to(scored["input_ids"].device)
        if self.ref_model is None and not is_adapted(self.model):
            problem = "a batch holds answers that the reference has not read, and the policy has moved on since"
            raise DataError(
                f"{problem}\n  remedy: pass `ref_model`, or evaluate on the dataset that the trainer was given"
            )
        log_probs = self._read(model, scored)
        self.reference_cache.store(keys, layout.tokens(log_probs))
        return log_probs

    def _read(self, model: Any, model_inputs: dict[str, Any]) -> Tensor:
        """Log-probabilities `[B, T]` of the labels under pi_ref, zero where there is no label."""
        with torch.no_grad():
            if self.ref_model is not None:
                return self.ref_model(**model_inputs).log_probs  # type: ignore[no-any-return]
            was_training = model.training
            # Without dropout, and without checkpoints of activations that nobody reads.
            model.eval()
            with reference_adapter(self.accelerator.unwrap_model(model)):
                log_probs: Tensor = model(**model_inputs).log_probs
            model.train(was_training)
            return log_probs
