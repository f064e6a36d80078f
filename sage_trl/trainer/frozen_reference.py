"""pi_ref of E-DPO: a second model, a frozen copy of the adapter, or what either said before, from disk."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list, tqdm
from torch import Tensor, nn
from transformers import TrainerCallback
from transformers.utils import is_flash_attn_2_available

from sage_trl.errors import DataError
from sage_trl.models.adapters import is_adapted, reference_adapter, unwrapped
from sage_trl.trainer.answers import AnswerLayout, answer_layout
from sage_trl.trainer.reference_cache import ReferenceCache, reference_sha256

_NOT_COMPUTED = ("_name_or_path", "_commit_hash", "use_cache", "pad_token_id", "bos_token_id", "eos_token_id")


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
        is_sharded: see `FactTrainerMixin`; such a model can run only once training has wrapped it.
        has_trained: whether the policy may have moved since the trainer was built.
    """

    model: Any
    ref_model: Any
    args: Any
    accelerator: Any
    reference_cache: ReferenceCache | None
    is_sharded: bool
    is_in_train: bool
    has_trained = False

    def open_reference_cache(self) -> ReferenceCache:
        reference = self.accelerator.unwrap_model(self.model if self.ref_model is None else self.ref_model)
        refuse_partitioned(reference)
        plain = unwrapped(reference)
        identity = {
            # FSDP may load the weights in one process alone, which hands them to the others later.
            "weights": reference_sha256(reference) if self.accelerator.is_main_process else "",
            "config": computing_config(plain.config.to_dict()),
            "attention": plain.config.get_text_config()._attn_implementation,
            "shared_prefix": self.args.shared_prefix,
            "autocast": "bf16" if self.args.bf16 else "fp16" if self.args.fp16 else None,
            "device": self.accelerator.device.type,
            "torch": torch.__version__,
            "libraries": {name: version(name) for name in ("transformers", "trl", "peft")},
            "flash_attn": is_flash_attn_2_available(),
        }
        [identity] = broadcast_object_list([identity])
        cache = ReferenceCache(
            Path(self.args.reference_cache), identity, self.accelerator.process_index, self.accelerator.num_processes
        )
        self.accelerator.wait_for_everyone()
        cache.read()
        self.add_callback(ReferenceReading(self))  # type: ignore[attr-defined]
        return cache

    @property
    def policy_is_reference(self) -> bool:
        """Whether pi_ref is what the policy was before the first step, and nothing else."""
        return self.ref_model is None and not is_adapted(self.model)

    @property
    def must_read_policy(self) -> bool:
        """Whether all rows are to be read with the policy now: once it has moved it is no reference any more."""
        return self.reference_cache is not None and self.policy_is_reference and not self.has_trained

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """TRL's training; where the policy itself is the reference, its log-probabilities are read first.

        See `Trainer.train`.
        """
        if self.must_read_policy and not self.is_sharded:
            self.read_all(self.model)
        return super().train(*args, **kwargs)  # type: ignore[misc]

    def _load_from_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_checkpoint(*args, **kwargs)  # type: ignore[misc]
        self.has_trained = True

    def prediction_step(self, *args: Any, **kwargs: Any) -> Any:
        """TRL's, in the precision of training also before it: TRL leaves a policy without adapter unprepared then."""
        with self.accelerator.autocast():
            return super().prediction_step(*args, **kwargs)  # type: ignore[misc]

    def read_all(self: Any, model: Any) -> None:
        """Read all answers with the policy, wrapped or not, which before the first step is pi_ref."""
        cache = self.reference_cache
        loaders = self._loaders_of_all_rows()
        for inputs in tqdm(itertools.chain(*loaders), desc="reference", disable=self.args.disable_tqdm):
            batch = self._prepare_inputs(inputs)
            layout = answer_layout(batch)
            if not self._every_process(cache.find(batch["answer_keys"]) is not None):
                log_probs = self._read(model, self.scored_inputs(batch, layout))
                cache.store(batch["answer_keys"], layout.tokens(log_probs))

    def _loaders_of_all_rows(self: Any) -> list[Any]:
        """Those of training and evaluation; what `dataloader_drop_last` leaves out differs from epoch to epoch."""
        drop_last = self.args.dataloader_drop_last
        self.args.dataloader_drop_last = False
        try:
            loaders = [self.get_train_dataloader()]
            if isinstance(self.eval_dataset, dict):
                loaders += [self.get_eval_dataloader(name) for name in self.eval_dataset]
            elif self.eval_dataset is not None:
                loaders.append(self.get_eval_dataloader())
        finally:
            self.args.dataloader_drop_last = drop_last
        return loaders

    def _every_process(self, is_true: bool) -> bool:
        """Whether it is true of all processes: wrapped models take part in a forward together or not at all."""
        count = self.accelerator.reduce(torch.tensor(int(is_true), device=self.accelerator.device), reduction="sum")
        return int(count) == int(self.accelerator.num_processes)

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
        if self._every_process(found is not None) and found is not None:
            return layout.spread(found).to(scored["input_ids"].device)
        if self.policy_is_reference and self.has_trained:
            problem = "a batch holds answers that the reference has not read, and the policy has moved on since"
            raise DataError(
                f"{problem}\n  remedy: pass `ref_model`, or evaluate on the dataset that the trainer was given"
            )
        log_probs = self._read(model, scored)
        # Outside training the `Trainer` casts its model for these.
        rounds_weights = self.args.bf16_full_eval or self.args.fp16_full_eval
        if self.is_in_train or not rounds_weights:
            self.reference_cache.store(keys, layout.tokens(log_probs))
        return log_probs

    def _read(self, model: Any, model_inputs: dict[str, Any]) -> Tensor:
        """Log-probabilities `[B, T]` of the labels under pi_ref, zero where there is no label."""
        # A model that nothing has prepared yet does not switch to autocast by itself.
        with torch.no_grad(), self.accelerator.autocast():
            if self.ref_model is not None:
                return self.ref_model(**model_inputs).log_probs  # type: ignore[no-any-return]
            was_training = model.training
            # Without dropout, and without checkpoints of activations that nobody reads.
            model.eval()
            plain = self.accelerator.unwrap_model(model)
            with reference_adapter(plain) if is_adapted(plain) else nullcontext():
                log_probs: Tensor = model(**model_inputs).log_probs
            model.train(was_training)
            return log_probs


class ReferenceReading(TrainerCallback):
    """Reads what the policy alone can tell before its first step, and each epoch what other processes have stored.

    Args:
        trainer: a trainer with a reference cache.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer

    def on_train_begin(self, _args: Any, state: Any, _control: Any, **_kwargs: Any) -> None:
        """Sharded models can be read here first, unless a checkpoint was loaded into them."""
        trainer = self._trainer
        if trainer.must_read_policy and trainer.is_sharded and state.global_step == 0:
            trainer.read_all(trainer.model_wrapped)
        trainer.has_trained = True

    def on_epoch_begin(self, _args: Any, _state: Any, _control: Any, **_kwargs: Any) -> None:
        """In a new epoch a process meets rows that were another's in the last."""
        accelerator = self._trainer.accelerator
        if accelerator.num_processes > 1:
            # Nobody writes while somebody reads.
            accelerator.wait_for_everyone()
            self._trainer.reference_cache.read()
            accelerator.wait_for_everyone()


def computing_config(values: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration's values and those of its parts, without its origin and what trainers set for generation."""
    kept = {name: value for name, value in values.items() if name not in _NOT_COMPUTED}
    return {name: computing_config(value) if isinstance(value, dict) else value for name, value in kept.items()}


def refuse_partitioned(model: nn.Module) -> None:
    """Refuse a model of which each process holds a part: it cannot be told from another by its weights.

    Raises:
        ValueError: ZeRO-3 has loaded the model.
    """
    if any(hasattr(parameter, "ds_id") for parameter in model.parameters()):
        raise ValueError("reference_cache: ZeRO-3 keeps no whole weights to know the reference by; use ZeRO-2 or FSDP2")
