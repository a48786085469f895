"""Scores and keys from one layer of Qwen-VL's vision encoder, while all layers stay on their fast kernel.

The queries and keys are those that the layer makes for itself. A patch attends to its own picture.

Shapes: patches = those of all pictures in the call, in the encoder's order; n = patches of a picture; heads, head_dim =
the layer's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.qwen3_vl.modeling_qwen3_vl import apply_rotary_pos_emb_vision

from vico_eval.families.encoder_attention import PatchAttention

MAX_NUMBERS = 2**24
"""Attention weights of a head that are worked on at once: a picture of 65536 patches has 2^32."""


class WatchedLayer:
    """What a layer's attention made in the calls of the encoder inside `watching`."""

    def __init__(self, attention: Any) -> None:
        self._attention = attention
        self._fused: Tensor | None = None
        self._found: PatchAttention | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Inside, what the encoder sees is noted."""
        handles = (
            self._attention.qkv.register_forward_hook(self._note_fused),
            self._attention.register_forward_hook(self._note, with_kwargs=True),
        )
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def taken(self) -> PatchAttention:
        """Scores [patches], the mean over rows and heads, and keys [patches, head_dim] of the last call."""
        assert self._found is not None, "the layer has been called by now"
        found, self._found = self._found, None
        return found

    def _note_fused(self, _: nn.Module, __: tuple[Any, ...], fused: Tensor) -> None:
        self._fused = fused

    def _note(self, _: nn.Module, __: tuple[Any, ...], named: dict[str, Any], ___: object) -> None:
        assert self._fused is not None, "the layer has made queries and keys by now"
        fused, self._fused = self._fused, None
        query, key, _values = fused.unflatten(-1, (3, self._attention.num_heads, -1)).unbind(1)
        query, key = apply_rotary_pos_emb_vision(query, key, *named["position_embeddings"])
        sizes = named["cu_seqlens"].diff().tolist()
        scores = [
            received(*each, self._attention.scaling)
            for each in zip(query.float().split(sizes), key.float().split(sizes), strict=True)
        ]
        self._found = PatchAttention(torch.cat(scores), key.float().mean(dim=1))


def received(query: Tensor, key: Tensor, scaling: float) -> Tensor:
    """Softmax attention that each patch of a picture receives, [n], float32: mean over rows and heads.

    Args:
        query: [n, heads, head_dim], float32, rotary embedding applied.
        key: the same of keys.
        scaling: of the logits.
    """
    total = query.new_zeros(len(key))
    rows = max(1, MAX_NUMBERS // len(key))
    # Head by head: the matrices of all heads together would leave the CPU's caches.
    for some, theirs in zip(query.unbind(1), key.unbind(1), strict=True):
        for portion in some.split(rows):
            total += (portion @ theirs.T).mul_(scaling).softmax(dim=-1).sum(dim=0)
    return total / (len(query) * query.shape[1])
