"""A key-value cache that has room for the tokens to come: a step of generation copies nothing of those before it."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

# Tokens for which room is made at a time. More would be memory that short answers never use.
ROOM = 64


class GrowingLayer(DynamicLayer):
    """As `DynamicLayer`, which copies all keys and values for every token that it adds.

    Args:
        keys, values: `[rows, heads, tokens, dimensions]`, what the layer begins with.
    """

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self.keys, self.values = keys, values
        self._buffers = (keys, values)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Add `[rows, heads, new tokens, dimensions]`; returns all keys and values, as views of larger tensors."""
        if not self.is_initialized:  # after `reset`
            keys, values = super().update(key_states, value_states, *args, **kwargs)
            return keys, values
        filled = self.keys.shape[-2]
        end = filled + key_states.shape[-2]
        is_ours = self.keys.data_ptr() == self._buffers[0].data_ptr()  # not so once rows were selected or reordered
        if not is_ours or end > self._buffers[0].shape[-2]:
            self._buffers = (_with_room(self.keys, end + ROOM), _with_room(self.values, end + ROOM))
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[..., filled:end, :] = states
        self.keys, self.values = (buffer[..., :end, :] for buffer in self._buffers)
        return self.keys, self.values


def make_growing(cache: Cache) -> None:
    """Let the layers of a cache grow in place; those of other kinds (sliding windows, states) stay as they are."""
    cache.layers = [
        GrowingLayer(layer.keys, layer.values) if type(layer) is DynamicLayer and layer.is_initialized else layer
        for layer in cache.layers
    ]


def _with_room(filled: Tensor, tokens: int) -> Tensor:
    rows, heads, length, dimensions = filled.shape
    buffer = filled.new_empty(rows, heads, tokens, dimensions)
    buffer[..., :length, :] = filled
    return buffer
