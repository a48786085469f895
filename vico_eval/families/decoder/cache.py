"""A KV cache with preallocated room for the tokens to come.

Shapes: batch = rows of the call; H = key and value heads; N = cached tokens; n = new tokens; d = head dimension.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

ROOM = 16
"""Number of further tokens that a layer reserves when it allocates memory."""


class PreallocatedCache(DynamicCache):
    """transformers' dynamic cache, without copying all entries for every new token.

    Args:
        config: the decoder's configuration. Layers with sliding attention keep transformers' own cache.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config=config)
        self.layers = [PreallocatedLayer() if type(layer) is DynamicLayer else layer for layer in self.layers]


class PreallocatedLayer(DynamicLayer):
    """Keys and values of a layer, [batch, H, N, d] each: views of the beginning of a longer buffer."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._key_buffer: Tensor | None = None
        self._value_buffer: Tensor | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *arguments: Any, **keywords: Any
    ) -> tuple[Tensor, Tensor]:
        """Append [batch, H, n, d] new keys and values, and return all."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys, self._key_buffer = _appended(self.keys, key_states, self._key_buffer)
        self.values, self._value_buffer = _appended(self.values, value_states, self._value_buffer)
        return self.keys, self.values


def _appended(held: Tensor | None, new: Tensor, buffer: Tensor | None) -> tuple[Tensor, Tensor]:
    """Append new entries; return all of them and their buffer."""
    assert held is not None
    before = held.shape[-2] if held.numel() else 0  # an empty cache has one dimension
    length = before + new.shape[-2]
    if buffer is None or not _begins(held, buffer) or buffer.shape[-2] < length:
        buffer = new.new_empty(*new.shape[:-2], length + ROOM, new.shape[-1])
        if before:
            buffer[..., :before, :] = held
    buffer[..., before:length, :] = new
    return buffer[..., :length, :], buffer


def _begins(held: Tensor, buffer: Tensor) -> bool:
    # Reordering beams, selecting rows and moving to another device replace our tensors.
    return held.data_ptr() == buffer.data_ptr() and held.shape[0] == buffer.shape[0]
