"""What the decoder tells a part that takes tokens out between its layers, and what it is told.

Shapes: tokens = a single request's, without padding; D = width.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from transformers.models.llama.modeling_llama import rotate_half


class RequestPrompt(NamedTuple):
    """One request at the decoder's input."""

    key: str
    embeddings: Tensor
    """[tokens, D]."""

    is_visual: Tensor
    """[tokens], bool."""


class KeptTokens(NamedTuple):
    """The tokens of one request that go on, and new ones among them."""

    keep_indices: Tensor
    """[kept], int64, ascending; every text token is among them."""

    merged: Tensor | None = None
    """[merged, D]: visual tokens made of others. Having no position of their own, they need a part that renumbers."""

    merge_at: int = 0
    """How many of the kept tokens stand before the merged ones."""


@dataclass(frozen=True)
class LayerState:
    """One request right behind a layer: what a part decides from."""

    key: str
    layer: int
    num_layers: int
    hidden: Tensor
    """[tokens, D]: what the layer made."""

    is_visual: Tensor
    """[tokens], bool."""

    positions: Tensor
    """[tokens], int64: position ids in this layer."""

    visual_tokens: tuple[int, ...]
    """[layer + 1]: how many visual tokens this layer and those before it worked on."""

    prepared: Any
    """What the part's `prepare` returned for this request."""

    cos: Tensor
    sin: Tensor
    """[tokens, head_dim], float32: the rotary embedding at `positions`."""

    _module: Any
    _inputs: Tensor
    _keys: Tensor

    def attention(self, queries: Tensor) -> Tensor:
        """Rows of this layer's softmax attention weights.

        Computed from the layer's own queries and keys for these rows alone, so the model keeps its fast kernel, and no
        second pass through the layer touches the cache.

        Args:
            queries: [rows], int64: indices of the tokens that look.

        Returns:
            [heads, rows, tokens], float32; zero where a key stands behind its query.
        """
        attention, keys = self._module.self_attn, self._keys  # keys: [key_heads, tokens, head_dim]
        query = attention.q_proj(self._module.input_layernorm(self._inputs[queries]))
        query = query.view(len(queries), -1, attention.head_dim)
        if getattr(attention, "q_norm", None) is not None:
            query = attention.q_norm(query)
        cos, sin = (table[queries, None].to(query) for table in (self.cos, self.sin))
        query = (query * cos + rotate_half(query) * sin).to(keys.device)
        # Heads of a group share their keys: grouped, nothing is repeated in memory.
        grouped = query.transpose(0, 1).unflatten(0, (len(keys), -1)).float()  # [key_heads, group, rows, head_dim]
        logits: Tensor = grouped @ keys.float().transpose(1, 2)[:, None] * attention.scaling
        behind = torch.arange(keys.shape[1], device=keys.device) > queries.to(keys.device)[:, None]
        weights = logits.masked_fill(behind, float("-inf")).softmax(dim=-1)
        return weights.flatten(0, 1).to(self.hidden.device)


class TokenSelector(Protocol):
    """What the decoder asks of a part; `vico_eval.methods.parts.DecoderPart` describes it."""

    @property
    def renumbers(self) -> bool:
        """Whether the tokens that go on take positions 0, 1, 2, ... instead of keeping their own."""

    def layers(self, num_layers: int) -> AbstractSet[int]:
        """The layers behind which tokens may leave."""

    def prepare(self, request: RequestPrompt) -> Any:
        """Anything about a request that is to be known from the decoder's input."""

    def reduce(self, state: LayerState) -> KeptTokens | None:
        """The tokens that go on; None for all, as they are."""
