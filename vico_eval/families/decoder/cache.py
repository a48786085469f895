"""Keys and values of a decoder's layers, with room for those of the tokens to come.

Shapes: batch = rows of the call; H = key and value heads; N = tokens held; n = new ones; d = width of a head.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

ROOM = 16
"""Tokens for which there is room behind those that a layer holds when it takes more memory."""


class PreallocatedCache(DynamicCache):
    """transformers' growing cache, which does not copy everything it holds for every new token.

    Args:
        config: the decoder's. Its layers with sliding attention keep transformers' own cache.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config=config)
        self.layers = [PreallocatedLayer() if type(layer) is DynamicLayer else layer for layer in self.layers]


class PreallocatedLayer(DynamicLayer):
    """Keys and values of one layer, [batch, H, N, d] each: the beginning of a longer buffer."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._key_buffer: Tensor | None = None
        self._value_buffer: Tensor | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *arguments: Any, **keywords: Any
    ) -> tuple[Tensor, Tensor]:
        """All keys and values, with [batch, H, n, d] new ones behind those held."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys, self._key_buffer = _appended(self.keys, key_states, self._key_buffer)
        self.values, self._value_buffer = _appended(self.values, value_states, self._value_buffer)
        return self.keys, self.values


def _appended(held: Tensor | None, new: Tensor, buffer: Tensor | None) -> tuple[Tensor, Tensor]:
    """Both, and the buffer that they are the beginning of."""
    assert held is not None
    before = held.shape[-2] if held.numel() else 0  # what holds nothing yet has one dimension
    length = before + new.shape[-2]
    if buffer is None or not _begins(held, buffer) or buffer.shape[-2] < length:
        buffer = new.new_empty(*new.shape[:-2], length + ROOM, new.shape[-1])
        if before:
            buffer[..., :before, :] = held
    buffer[..., before:length, :] = new
    return buffer[..., :length, :], buffer


def _begins(held: Tensor, buffer: Tensor) -> bool:
    # Reordering beams, choosing rows and moving to another device put tensors of their own in the place of ours.
    return held.data_ptr() == buffer.data_ptr() and held.shape[0] == buffer.shape[0]
