"""One step of a real trainer on tensors without memory, and what it would have held."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from sage_trl.errors import RecipeError
from sage_trl.planning.shape_tensor import storage_bytes, storage_key, total_bytes

TORCH_OPTIMIZERS = ("adamw_torch", "adamw_torch_fused", "adafactor", "sgd", "adagrad", "rmsprop")
# Their kernels want real memory, and only their state is made.
BITSANDBYTES_OPTIMIZERS = (
    *("adamw_bnb_8bit", "adamw_8bit", "paged_adamw_8bit", "paged_adamw_32bit"),
    *("lion_8bit", "lion_32bit", "paged_lion_8bit", "paged_lion_32bit"),
)


@dataclass(frozen=True)
class Usage:
    """Bytes on one GPU.

    Args:
        weights: parameters of the model that trains, its adapters included.
        reference: parameters of the frozen reference, where it is a model of its own.
        buffers: buffers of both, and the scales of 4-bit weights.
        gradients: of all parameters that get one.
        optimizer: the optimizer's state tensors.
        activations: what the forward keeps for the backward, counted as `torch.autograd.graph.saved_tensors_hooks`
            sees it, parameters and buffers apart. Casts of fp32 weights under autocast are among them.
        recomputed: with gradient checkpointing, what the largest layer keeps while the backward recomputes it.
    """

    weights: int
    reference: int
    buffers: int
    gradients: int
    optimizer: int
    activations: int
    recomputed: int

    @property
    def total(self) -> int:
        """All of it at once."""
        parts = (self.weights, self.reference, self.buffers, self.gradients, self.optimizer)
        return sum(parts) + self.activations + self.recomputed


def prepare_arguments(args: Any, directory: str) -> Any:
    """The same training for one step that is neither logged, evaluated nor saved, and shows every reference.

    Raises:
        RecipeError: an optimizer whose state we cannot count.
    """
    known = (*TORCH_OPTIMIZERS, *BITSANDBYTES_OPTIMIZERS)
    if args.optim not in known:
        remedy = f"set it to one of {', '.join(known)}"
        raise RecipeError(f"optim {args.optim.value}: the size of its state is not known here\n  remedy: {remedy}")
    changes = {
        "output_dir": directory,
        "max_steps": 1,
        "gradient_accumulation_steps": 1,
        "reference_dropout": 0.0,
        "eval_strategy": IntervalStrategy.NO,
        "logging_strategy": IntervalStrategy.NO,
        "save_strategy": SaveStrategy.NO,
        "load_best_model_at_end": False,
        "push_to_hub": False,
        "report_to": [],
        "disable_tqdm": True,
        "dataloader_num_workers": 0,
        "torch_compile": False,
    }
    prepared = copy.copy(args)
    for name, value in changes.items():
        setattr(prepared, name, value)
    return prepared


def one_step(trainer: Any) -> tuple[Usage, tuple[int, int]]:
    """Train one step.

    Args:
        trainer: a trainer of models without memory, with the rows of one batch.

    Returns:
        What it held, and the shape of `input_ids`.
    """
    trainer.remove_callback(PrinterCallback)
    watch = _Watch(trainer)
    trainer.add_callback(watch)
    trainer.train()
    model, reference = trainer.model, getattr(trainer, "ref_model", None)
    models = [model] if reference is None else [model, reference]
    usage = Usage(
        weights=total_bytes(model.parameters()),
        reference=0 if reference is None else total_bytes(reference.parameters()),
        buffers=total_bytes(buffer for one in models for buffer in one.buffers()),
        gradients=watch.gradients,
        optimizer=total_bytes(
            value for state in trainer.optimizer.state.values() for value in state.values() if torch.is_tensor(value)
        ),
        activations=watch.activations,
        recomputed=watch.recomputed,
    )
    return usage, watch.shape


class _Watch(TrainerCallback):  # type: ignore[misc]
    """Counts during a step what is gone after it."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.gradients = self.activations = self.recomputed = 0
        self.shape = (0, 0)
        self.compute_loss: Callable[..., Any] = trainer.compute_loss
        trainer.compute_loss = self._watched_loss

    def on_train_begin(self, *_args: Any, **kwargs: Any) -> None:
        if self.trainer.args.optim in BITSANDBYTES_OPTIMIZERS:
            kwargs["optimizer"].optimizer.update_step = lambda *_args: None

    def on_pre_optimizer_step(self, *_args: Any, **_kwargs: Any) -> None:
        gradients = (parameter.grad for parameter in self.trainer.model.parameters())
        self.gradients = total_bytes(gradient for gradient in gradients if gradient is not None)

    def _watched_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        self.shape = tuple(inputs["input_ids"].shape)
        if self.trainer.args.gradient_checkpointing:
            self.recomputed = self._largest_layer(model, dict(inputs))
        saved = _SavedTensors(self.trainer)
        with saved.counting():
            loss = self.compute_loss(model, inputs, *args, **kwargs)
        self.activations = saved.bytes
        return loss

    def _largest_layer(self, model: Any, inputs: dict[str, Any]) -> int:
        """Bytes of activations of the layer that keeps most, from a forward without checkpoints."""
        layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
        enabled = [layer.gradient_checkpointing for layer in layers]
        saved = _SavedTensors(self.trainer)
        before: list[int] = []
        kept: list[int] = []
        hooks = []
        for layer in layers:
            layer.gradient_checkpointing = False
            hooks.append(layer.register_forward_pre_hook(lambda *_: before.append(saved.bytes)))
            hooks.append(layer.register_forward_hook(lambda *_: kept.append(saved.bytes - before.pop())))
        with saved.counting():
            self.compute_loss(model, inputs)
        for layer, was_enabled in zip(layers, enabled, strict=True):
            layer.gradient_checkpointing = was_enabled
        for hook in hooks:
            hook.remove()
        return max(kept)


class _SavedTensors:
    """Bytes that autograd keeps for the backward, the models' parameters and buffers apart."""

    def __init__(self, trainer: Any) -> None:
        models: list[nn.Module] = [trainer.model, *filter(None, [getattr(trainer, "ref_model", None)])]
        self.bytes = 0
        self._known = {storage_key(tensor) for model in models for tensor in (*model.parameters(), *model.buffers())}
        self._alive: list[Tensor] = []

    @contextmanager
    def counting(self) -> Iterator[None]:
        with torch.autograd.graph.saved_tensors_hooks(self._keep, lambda tensor: tensor):
            yield

    def _keep(self, tensor: Tensor) -> Tensor:
        key = storage_key(tensor)
        if key not in self._known:
            self._known.add(key)
            self._alive.append(tensor)
            self.bytes += storage_bytes(tensor)
        return tensor
