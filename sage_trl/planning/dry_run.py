"""One step of a real trainer on tensors without memory, and what it would have held."""

from __future__ import annotations

import copy
import gc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from sage_trl.errors import RecipeError
from sage_trl.planning.counted_work import CountedWork
from sage_trl.planning.parameters import ParameterShape, parameter_shapes
from sage_trl.planning.shape_tensor import source_of_copy, storage_bytes, storage_key, total_bytes

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
            sees it, parameters, their copies and buffers apart.
        recomputed: with gradient checkpointing, what the largest layer keeps while the backward recomputes it.
        weight_copies: what the forward keeps of autocast's copies of fp32 weights.
        gathered: what communication between GPUs holds at a time; none on one.
    """

    weights: int
    reference: int
    buffers: int
    gradients: int
    optimizer: int
    activations: int
    recomputed: int
    weight_copies: int = 0
    gathered: int = 0

    @property
    def total(self) -> int:
        """All of it at once."""
        return sum(astuple(self))


@dataclass(frozen=True)
class DryRun:
    """What one step would have held and done on one GPU that holds all.

    Attributes:
        usage: bytes.
        batch: sequences, and the tokens that all are padded to.
        flops: floating-point operations of the step's multiplications, the reference's and what checkpointing computes
            again included.
        unbroken_activations: bytes of `activations` without gradient checkpointing.
        recomputed_copies: autocast's copies of weights in `recomputed`.
        parameters: of the model that trains.
        reference: parameters of the reference, where it is a model of its own.
    """

    usage: Usage
    batch: tuple[int, int]
    flops: int
    unbroken_activations: int
    recomputed_copies: int
    parameters: tuple[ParameterShape, ...]
    reference: tuple[ParameterShape, ...]


def without_reference(run: DryRun) -> DryRun:
    """The same step where the reference's answers come from a cache and no model of it is held."""
    return replace(run, usage=replace(run.usage, reference=0), reference=())


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


def one_step(trainer: Any) -> DryRun:
    """Train one step.

    Args:
        trainer: a trainer of models without memory, with the rows of one batch.
    """
    trainer.remove_callback(PrinterCallback)
    watch = _Watch(trainer)
    trainer.add_callback(watch)
    trainer.train()
    model, reference = trainer.model, getattr(trainer, "ref_model", None)
    models = [model] if reference is None else [model, reference]
    state = trainer.optimizer.state
    usage = Usage(
        weights=total_bytes(model.parameters()),
        reference=0 if reference is None else total_bytes(reference.parameters()),
        buffers=total_bytes(buffer for one in models for buffer in one.buffers()),
        gradients=watch.gradients,
        optimizer=total_bytes(
            value for values in state.values() for value in values.values() if torch.is_tensor(value)
        ),
        activations=watch.activations,
        recomputed=watch.recomputed,
        weight_copies=watch.copies,
    )
    return DryRun(
        usage=usage,
        batch=watch.shape,
        flops=watch.work.flops,
        unbroken_activations=watch.unbroken or watch.activations,
        recomputed_copies=watch.recomputed_copies,
        parameters=parameter_shapes(model, state),
        reference=() if reference is None else parameter_shapes(reference, {}),
    )


class _Watch(TrainerCallback):  # type: ignore[misc]
    """Counts during a step what is gone after it."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.gradients = self.recomputed = self.recomputed_copies = self.unbroken = 0
        self.activations = self.copies = 0
        self.work = CountedWork()
        self.shape = (0, 0)
        self.compute_loss: Callable[..., Any] = trainer.compute_loss
        trainer.compute_loss = self._watched_loss
        training_step: Callable[..., Any] = trainer.training_step

        def counted_step(*args: Any, **kwargs: Any) -> Any:
            with self.work.counting():
                return training_step(*args, **kwargs)

        trainer.training_step = counted_step

    def on_train_begin(self, *_args: Any, **kwargs: Any) -> None:
        if self.trainer.args.optim in BITSANDBYTES_OPTIMIZERS:
            kwargs["optimizer"].optimizer.update_step = lambda *_args: None

    def on_pre_optimizer_step(self, *_args: Any, **_kwargs: Any) -> None:
        gradients = (parameter.grad for parameter in self.trainer.model.parameters())
        self.gradients = total_bytes(gradient for gradient in gradients if gradient is not None)

    def _watched_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        self.shape = tuple(inputs["input_ids"].shape)
        if self.trainer.args.gradient_checkpointing:
            with self.work.paused():
                self._run_without_checkpoints(model, dict(inputs))
        saved = _SavedTensors(self.trainer)
        with saved.counting():
            loss = self.compute_loss(model, inputs, *args, **kwargs)
        self.activations, self.copies = saved.settled()
        return loss

    def _run_without_checkpoints(self, model: Any, inputs: dict[str, Any]) -> None:
        """Count all activations, and those of the layer that keeps most, in a forward without checkpoints."""
        layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
        enabled = [layer.gradient_checkpointing for layer in layers]
        saved = _SavedTensors(self.trainer)
        before: list[tuple[int, int]] = []
        kept: list[tuple[int, int]] = []

        def leave(*_: Any) -> None:
            activations, copies = before.pop()
            kept.append((saved.bytes - activations, saved.copies - copies))

        hooks = []
        for layer in layers:
            layer.gradient_checkpointing = False
            hooks.append(layer.register_forward_pre_hook(lambda *_: before.append((saved.bytes, saved.copies))))
            hooks.append(layer.register_forward_hook(leave))
        with saved.counting():
            loss = self.compute_loss(model, inputs)
        self.unbroken, _ = saved.settled()
        del loss
        for layer, was_enabled in zip(layers, enabled, strict=True):
            layer.gradient_checkpointing = was_enabled
        for hook in hooks:
            hook.remove()
        activations, self.recomputed_copies = max(kept, key=sum)
        self.recomputed = activations + self.recomputed_copies


class _SavedTensors:
    """Bytes that autograd keeps for the backward, the models' parameters and buffers apart, and copies of those.

    What is let go of again does not count: a checkpoint saves its inputs also where nothing in it has a gradient.
    """

    def __init__(self, trainer: Any) -> None:
        models: list[nn.Module] = [trainer.model, *filter(None, [getattr(trainer, "ref_model", None)])]
        self.bytes = self.copies = 0
        self._of_models = {
            storage_key(tensor) for model in models for tensor in (*model.parameters(), *model.buffers())
        }
        self._holders: Counter[int] = Counter()

    @contextmanager
    def counting(self) -> Iterator[None]:
        with torch.autograd.graph.saved_tensors_hooks(lambda tensor: _Saved(tensor, self), lambda saved: saved.tensor):
            yield

    def settled(self) -> tuple[int, int]:
        """Bytes and copies once nothing is left that only a cycle of references holds, which may be there or not."""
        gc.collect()
        return self.bytes, self.copies

    def add(self, tensor: Tensor) -> None:
        """Autograd keeps a tensor, on memory that it may know already."""
        key = storage_key(tensor)
        self._holders[key] += 1
        if self._holders[key] == 1:
            self._count(tensor, storage_bytes(tensor))

    def remove(self, tensor: Tensor) -> None:
        """Autograd has let go of it."""
        key = storage_key(tensor)
        self._holders[key] -= 1
        if not self._holders[key]:
            del self._holders[key]
            self._count(tensor, -storage_bytes(tensor))

    def _count(self, tensor: Tensor, size: int) -> None:
        if storage_key(tensor) in self._of_models:
            return
        if source_of_copy(tensor) in self._of_models:
            self.copies += size
        else:
            self.bytes += size


class _Saved:
    """A tensor as autograd keeps it: gone when autograd lets go of it."""

    def __init__(self, tensor: Tensor, counted: _SavedTensors) -> None:
        self.tensor, self._counted = tensor, counted
        counted.add(tensor)

    def __del__(self) -> None:
        self._counted.remove(self.tensor)
