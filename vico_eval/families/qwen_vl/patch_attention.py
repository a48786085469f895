"""Scores and keys from one layer of Qwen-VL's vision encoder, while all layers stay on their fast kernel.

Queries and keys are captured from the layer. A patch attends to its own image.

Shapes: patches = those of all images in the call, in the encoder's order; n = patches of an image; heads, head_dim =
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
"""Maximum number of attention weights of a head in memory; an image of 65,536 patches has 2^32."""


class WatchedLayer:
    """The queries and keys of a layer's attention in the encoder calls within `watching`."""

    def __init__(self, attention: Any) -> None:
        self._attention = attention
        self._fused: Tensor | None = None
        self._found: PatchAttention | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Record the encoder's calls within this context."""
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
        """Return scores [patches], the mean over rows and heads, and keys [patches, head_dim] of the last call."""
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
    """Return the softmax attention that each patch of an image receives, [n], float32: mean over rows and heads.

    Args:
        query: [n, heads, head_dim], float32, with rotary embedding.
        key: like `query`.
        scaling: factor of the logits.
    """
    total = query.new_zeros(len(key))
    rows = max(1, MAX_NUMBERS // len(key))
    # Head by head, because the matrices of all heads wouldn't fit into the CPU's caches.
    for some, theirs in zip(query.unbind(1), key.unbind(1), strict=True):
        for portion in some.split(rows):
            total += (portion @ theirs.T).mul_(scaling).softmax(dim=-1).sum(dim=0)
    return total / (len(query) * query.shape[1])
