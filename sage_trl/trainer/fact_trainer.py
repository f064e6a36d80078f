"""What both trainers share: trainable parts, batches, the fusion's learning rate, keys, the inference note."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from datasets import Image, List
from torch.distributed.fsdp import FSDPModule

from sage_trl.models.adapters import is_adapted, keep_trainable_in_fp32, unwrapped
from sage_trl.models.checkpoints import load_pretrained
from sage_trl.models.parts import PartSize, part_of, set_trainable_parts
from sage_trl.run_record import INFERENCE_FILE
from sage_trl.storage import write_json
from sage_trl.trainer.balanced_loading import BalancedLoading
from sage_trl.trainer.collators import FactCollator
from sage_trl.trainer.guarded_push import GuardedPush
from sage_trl.trainer.running_means import RunningMeans

ROW_COLUMNS = ("images", "reference_image", "facts", "prompt", "group_id", "question_id")


class FactTrainerMixin(BalancedLoading, RunningMeans, GuardedPush):
    """Comes before a TRL trainer in the bases.

    Attributes:
        answer_columns: the dataset columns of the stage beside `ROW_COLUMNS`.
        loss_keys: batch keys that the loss takes and the model does not.
        part_sizes: parameters per part, set once the trainer is built.
        stage: what the saved model is called in the inference note.
    """

    answer_columns: ClassVar[tuple[str, ...]]
    loss_keys: ClassVar[tuple[str, ...]]
    stage: str
    part_sizes: list[PartSize]
    model: Any
    args: Any
    optimizer: Any
    data_collator: Any
    compute_metrics: Any

    def freeze(self, model: Any) -> None:
        """Freeze the whole model while TRL builds the trainer, which rounds what trains of a quantised one to bf16.

        Raises:
            ValueError: a model whose parts have no names that we know.
        """
        if not hasattr(model, "part_prefixes"):
            raise ValueError(f"{type(model).__name__} is no fact-enhanced model; load it with `load_pretrained`")
        model.requires_grad_(False)

    def unfreeze_parts(self) -> None:
        """Let exactly `train_parts` train; to be called whenever PEFT may have made a whole adapter train.

        Raises:
            ValueError: a part of which nothing can train, or only with checkpointing of another kind.
        """
        self.part_sizes = set_trainable_parts(self.model, self.args.train_parts)
        idle = [size.part for size in self.part_sizes if size.part in self.args.train_parts and not size.trainable]
        if idle:
            raise ValueError(f"train_parts {idle}: this model's adapter does not reach them; leave them out")
        is_reentrant = (self.args.gradient_checkpointing_kwargs or {}).get("use_reentrant")
        if is_reentrant and "vision_encoder" in self.args.train_parts:
            raise ValueError("gradient_checkpointing_kwargs: with use_reentrant the vision_encoder gets no gradient")
        if is_adapted(self.model):
            keep_trainable_in_fp32(self.model)

    @property
    def is_sharded(self) -> bool:
        """Whether FSDP or DeepSpeed divides the weights among the processes."""
        return bool(self.is_fsdp_enabled or self.is_deepspeed_enabled)  # type: ignore[attr-defined]

    def prepare_sharding(self) -> None:
        """Where weights are divided, let all processes call the vision tower equally often and gather the head."""
        if not self.is_sharded:
            return
        if isinstance(self.data_collator, FactCollator):
            self.data_collator = replace(self.data_collator, always_reference=True)
        plain = unwrapped(self.model)
        plain.model.register_forward_pre_hook(lambda *_: gather_head(plain))

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """TRL's, showing every reference: dropout is for training."""
        rows = eval_dataset if isinstance(eval_dataset, str) else keep_images_encoded(eval_dataset)
        with self._every_reference(shared_prefix=None if self.compute_metrics is None else False):
            return super().get_eval_dataloader(rows)  # type: ignore[misc]

    def get_test_dataloader(self, test_dataset: Any) -> Any:
        """TRL's, showing every reference, row by row: `predict` returns the logits of rows."""
        with self._every_reference(shared_prefix=False):
            return super().get_test_dataloader(keep_images_encoded(test_dataset))  # type: ignore[misc]

    @contextmanager
    def _every_reference(self, *, shared_prefix: bool | None = None) -> Iterator[None]:
        collator = self.data_collator
        if isinstance(collator, FactCollator):
            shared = collator.shared_prefix if shared_prefix is None else shared_prefix
            self.data_collator = replace(collator, reference_dropout=0.0, shared_prefix=shared)
        try:
            yield
        finally:
            self.data_collator = collator

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = [*ROW_COLUMNS, *self.answer_columns]

    def check_batch_keys(self, model: Any, batch: Collection[str]) -> None:
        """Refuse a key that nobody reads: a backbone would swallow a misspelt input silently.

        Raises:
            ValueError: names the key and what is known.
        """
        plain = unwrapped(model)
        known = set(inspect.signature(type(plain).forward).parameters) | set(self.loss_keys) | {"use_cache"}
        unknown = sorted(set(batch) - known)
        if unknown:
            raise ValueError(f"batch keys {unknown} are unknown to {type(plain).__name__}; known: {sorted(known)}")

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        """TRL's optimizer, with the fusion's parameters in groups of their own if they have their own rate."""
        optimizer = super().create_optimizer(*args, **kwargs)  # type: ignore[misc]
        rate = self.args.fusion_learning_rate
        if rate is None:
            return optimizer
        names = {id(parameter): name for name, parameter in self.model.named_parameters()}
        for group in list(optimizer.param_groups):
            fusion = [p for p in group["params"] if part_of(self.model, names[id(p)]) == "fusion"]
            if not fusion:
                continue
            of_fusion = {id(parameter) for parameter in fusion}
            group["params"] = [p for p in group["params"] if id(p) not in of_fusion]
            optimizer.add_param_group({**group, "params": fusion, "lr": rate})
        return optimizer

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Go on from a checkpoint whole.

        The `Trainer` takes the file's tensor names as they are and leaves out what it does not know. They are those
        of the hub, to which `save_pretrained` translates, so that nearly all of the model would stay untrained.
        """
        if model is None and self._is_saved_by_save_pretrained(resume_from_checkpoint):
            self._load_whole(resume_from_checkpoint)
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)  # type: ignore[misc]
        self.unfreeze_parts()

    def _load_best_model(self) -> None:
        best = self.state.best_model_checkpoint  # type: ignore[attr-defined]
        if self._is_saved_by_save_pretrained(best):
            self._load_whole(best)
        else:
            super()._load_best_model()  # type: ignore[misc]

    def _is_saved_by_save_pretrained(self, checkpoint: str) -> bool:
        """Whether the whole model is there, not an adapter and not the shards of FSDP or DeepSpeed."""
        files = {path.name for path in Path(checkpoint).iterdir()}
        return not self.is_sharded and "config.json" in files and "adapter_config.json" not in files

    def _load_whole(self, checkpoint: str) -> None:
        restored, _ = load_pretrained(checkpoint, dtype=self.model.dtype)
        self.model.load_state_dict(restored.state_dict())

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """TRL's; a model whose checkpoints FSDP writes in parts is gathered and saved whole."""
        plugin = getattr(self.accelerator.state, "fsdp_plugin", None)
        if plugin is None or _internal_call:
            super().save_model(output_dir, _internal_call)  # type: ignore[misc]
            return
        of_checkpoints = plugin.state_dict_type
        plugin.set_state_dict_type("FULL_STATE_DICT")
        try:
            super().save_model(output_dir, _internal_call)  # type: ignore[misc]
        finally:
            plugin.set_state_dict_type(of_checkpoints)

    def _save(self, output_dir: str | None = None, state_dict: Mapping[str, Any] | None = None) -> None:
        super()._save(output_dir, state_dict)  # type: ignore[misc]
        if not self.args.should_save:
            return
        directory = Path(output_dir or self.args.output_dir)
        if is_adapted(self.model):
            # The base's configuration holds the fusion's settings; PEFT saves its own alone.
            self.model.get_base_model().config.save_pretrained(directory)
        note = {"facts": self.args.facts, "reference_in_prompt": self.args.reference_in_prompt}
        write_json(directory / INFERENCE_FILE, {**note, "stage": self.stage})


def gather_head(model: Any) -> None:
    """Gather a language head that FSDP2 has divided, from inside the model's forward.

    TRL's fused head takes the weight and never calls the module, so that FSDP2 would not know of it: each process would
    train its part of the head on its own batch alone.
    """
    head = model.get_output_embeddings()
    if isinstance(head, FSDPModule):
        head.unshard()


def collator_options(args: Any) -> dict[str, Any]:
    """The options of `FactCollator` that a stage's configuration holds."""
    names = ("facts", "reference_in_prompt", "reference_dropout", "seed", "shared_prefix")
    return {**{name: getattr(args, name) for name in names}, "vision_once": True}


def keep_images_encoded(dataset: Any) -> Any:
    """The same rows with image columns left as path or bytes: the collator decodes a shared image once per batch."""
    if dataset is None:
        return None
    if isinstance(dataset, dict):
        return {name: keep_images_encoded(part) for name, part in dataset.items()}
    for column in ("images", "reference_image"):
        feature = (dataset.features or {}).get(column)
        if isinstance(feature, Image) and feature.decode:
            dataset = dataset.cast_column(column, Image(decode=False))
        elif isinstance(feature, List) and isinstance(feature.feature, Image) and feature.feature.decode:
            dataset = dataset.cast_column(column, List(Image(decode=False)))
    return dataset
