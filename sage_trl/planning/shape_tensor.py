"""Tensors with shape, type and place, and without memory: a forward, a backward and an optimizer step run on them.

On the meta device itself a training step fails wherever it counts tokens or reads a mask. Here only what comes from
weights or activations has no values; ids, masks and sizes are ordinary tensors and are computed as always.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from sage_trl.planning.repeated_operations import repeated

aten = torch.ops.aten
META = torch.device("meta")
FACTORIES = (aten.empty.memory_format, aten.zeros.default, aten.ones.default, aten.full.default)


class ShapeTensor(Tensor):
    """A tensor on the CPU to all who ask, and on the meta device in truth.

    Where a result hangs on values, it is taken at its largest or as what training goes on with: a mask selects every
    element, a number that is read is one, a truth value is true.
    """

    on_meta: Tensor

    @staticmethod
    def __new__(cls, on_meta: Tensor) -> ShapeTensor:
        wrapper: ShapeTensor = Tensor._make_wrapper_subclass(
            cls,
            on_meta.shape,
            strides=on_meta.stride(),
            storage_offset=on_meta.storage_offset(),
            dtype=on_meta.dtype,
            device=torch.device("cpu"),
        )
        wrapper.on_meta = on_meta
        return wrapper

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @property
    def data(self) -> Tensor:  # type: ignore[override]
        """As of any tensor; what is assigned takes the place of `on_meta` too."""
        return self.detach()

    @data.setter
    def data(self, value: Any) -> None:
        Tensor.data.__set__(self, value)  # type: ignore[attr-defined]
        self.on_meta = value.on_meta

    def tolist(self) -> Any:
        """Nested lists, which torch would read from memory."""
        return self.item() if self.dim() == 0 else [row.tolist() for row in self.unbind()]

    def __repr__(self, **_keywords: Any) -> str:  # type: ignore[override]
        return f"ShapeTensor({tuple(self.shape)}, {self.dtype})"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, operation: Any, _types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if operation is aten._local_scalar_dense.default:
            return torch.ones((), dtype=args[0].dtype).item()
        if operation is aten.index.Tensor:
            args = (args[0], _positions(args[1]))
        wrappers: dict[int, ShapeTensor] = {}

        # Not by pytree, which would take most of a plan's time.
        def unwrap(value: Any) -> Any:
            if isinstance(value, ShapeTensor):
                wrappers[id(value.on_meta)] = value
                return value.on_meta
            if isinstance(value, Tensor):
                return value.to(META)
            if isinstance(value, list | tuple):
                return [unwrap(one) for one in value]
            return META if isinstance(value, torch.device) else value

        def wrap(value: Any) -> Any:
            if isinstance(value, Tensor):
                # An operation in place gives its argument back.
                return wrappers[id(value)] if id(value) in wrappers else ShapeTensor(value)
            return type(value)(map(wrap, value)) if isinstance(value, list | tuple) else value

        args = [unwrap(value) for value in args]
        result = repeated(operation, args, {name: unwrap(value) for name, value in (kwargs or {}).items()})
        if operation is aten._to_copy.default:
            # On the memory, because views of the copy are other tensors.
            result.untyped_storage().source = _key(args[0])
        return wrap(result)


def _positions(indices: Sequence[Tensor | None]) -> list[Tensor | None]:
    """The indices with each mask as the positions that it selects."""
    positions: list[Tensor | None] = []
    for index in indices:
        if index is None or index.dtype != torch.bool:
            positions.append(index)
        else:
            mask = torch.ones(index.shape, dtype=torch.bool) if isinstance(index, ShapeTensor) else index
            positions.extend(mask.nonzero().unbind(1))
    return positions


class NoFloatingMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is active, new tensors of floating point are shape tensors: such as tiles of logits."""

    def __torch_dispatch__(self, operation: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if operation in FACTORIES:
            on_meta = operation(*args, **{**kwargs, "device": META})
            if on_meta.is_floating_point():
                return ShapeTensor(on_meta)
        return operation(*args, **kwargs)


def drop_memory(model: nn.Module) -> None:
    """Replace all parameters and buffers of a model by shape tensors; what was shared or trained still is and does."""
    replaced: dict[int, Tensor] = {}

    def replace(tensor: Tensor | None) -> Any:
        if tensor is None:
            return None
        if id(tensor) not in replaced:
            shape = ShapeTensor(torch.empty_like(tensor, device=META))
            is_parameter = isinstance(tensor, nn.Parameter)
            replaced[id(tensor)] = nn.Parameter(shape, tensor.requires_grad) if is_parameter else shape
            # A packed weight says here what it stands for.
            vars(replaced[id(tensor)]).update(vars(tensor))
        return replaced[id(tensor)]

    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name in tensors:
                tensors[name] = replace(tensors[name])


def storage_key(tensor: Tensor) -> int:
    """What tensors on the same memory have in common, as long as one of them lives."""
    return _key(tensor.on_meta if isinstance(tensor, ShapeTensor) else tensor)


def source_of_copy(tensor: Tensor) -> int | None:
    """The `storage_key` of what a tensor's memory was copied from in another type, None where it was not."""
    on_meta = tensor.on_meta if isinstance(tensor, ShapeTensor) else tensor
    source: int | None = getattr(on_meta.untyped_storage(), "source", None)
    return source


def _key(tensor: Tensor) -> int:
    key: int = tensor.untyped_storage()._cdata
    return key


def storage_bytes(tensor: Tensor) -> int:
    """Bytes of the whole memory that a tensor looks at."""
    on_meta = tensor.on_meta if isinstance(tensor, ShapeTensor) else tensor
    return on_meta.untyped_storage().nbytes()


def total_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of the memory of all tensors, shared memory counted once."""
    alive = list(tensors)
    return sum({storage_key(tensor): storage_bytes(tensor) for tensor in alive}.values())
