"""Parameters as shards see them: sizes, which are gathered together, and the optimizer state of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

ROOT = "root"
EMBEDDINGS = "input embeddings"
HEAD = "head"


@dataclass(frozen=True)
class ParameterShape:
    """One parameter.

    Attributes:
        unit: what is gathered with it: `ROOT`, `EMBEDDINGS`, `HEAD`, or the name of a layer.
        rows: its first dimension, along which it is divided.
        numel: its elements.
        itemsize: bytes of one.
        trains: whether it gets a gradient.
        is_packed: a 4-bit weight, of which every GPU keeps the whole.
        state_per_element: bytes of optimizer state for each element.
        state_apart: bytes of optimizer state of another size than the parameter.
    """

    unit: str
    rows: int
    numel: int
    itemsize: int
    trains: bool
    is_packed: bool
    state_per_element: int
    state_apart: int

    @property
    def bytes(self) -> int:
        """Bytes of all of it."""
        return self.numel * self.itemsize

    def local(self, shards: int) -> int:
        """Elements on the first of so many GPUs, which holds most; the others pad theirs to as many."""
        if self.is_packed:
            return self.numel
        return -(-self.rows // shards) * (self.numel // self.rows)


def parameter_shapes(model: Any, state: Mapping[Tensor, Mapping[str, Any]]) -> tuple[ParameterShape, ...]:
    """The parameters of a model, each once, in the units that accelerate shards it by under FSDP2.

    Units are the layers whose class transformers names in `_no_split_modules`, the input embeddings, the head (with the
    embeddings where both are one) and what remains.

    Args:
        model: a model, with or without an adapter.
        state: the optimizer's state by parameter.
    """
    units = _units(model)
    return tuple(
        _shape(parameter, units.get(id(parameter), ROOT), state.get(parameter, {})) for parameter in model.parameters()
    )


def _shape(parameter: nn.Parameter, unit: str, state: Mapping[str, Any]) -> ParameterShape:
    tensors = [value for value in state.values() if torch.is_tensor(value)]
    alike = [tensor for tensor in tensors if tensor.numel() == parameter.numel() > 1]
    apart = [tensor for tensor in tensors if not any(tensor is one for one in alike)]
    return ParameterShape(
        unit=unit,
        rows=parameter.shape[0] if parameter.dim() else 1,
        numel=parameter.numel(),
        itemsize=parameter.element_size(),
        trains=parameter.requires_grad,
        is_packed=not parameter.is_floating_point(),
        state_per_element=sum(tensor.element_size() for tensor in alike),
        state_apart=sum(tensor.numel() * tensor.element_size() for tensor in apart),
    )


def _units(model: Any) -> dict[int, str]:
    """The unit of every parameter that is not in `ROOT`, by its `id`."""
    layers = set(model._no_split_modules or ())
    units: dict[int, str] = {}
    for name, module in model.named_modules():
        # A layer comes before the modules in it, whose parameters stay in the innermost layer.
        if type(module).__name__ in layers:
            units |= {id(parameter): name for parameter in module.parameters()}
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    units |= {id(parameter): EMBEDDINGS for parameter in embeddings.parameters()}
    return units | {id(parameter): HEAD for parameter in head.parameters()}
