"""What the decoder tells a part that changes its tokens between its layers, and what it is told.

Shapes: tokens = a single request's, without padding; D = width; C = vision width; tiles = those of a batch.
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


class NextTokens(NamedTuple):
    """The tokens of one request that a layer is to work on."""

    source: Tensor
    """[next], int64: indices of the tokens that go on, ascending, every text token among them; -1 in the place of a new
    visual token."""

    new: Tensor | None = None
    """[new, D]: the new tokens, in order. Where they only stand for others, each in its place, nothing moves; otherwise
    they have no position of their own and need a part that renumbers."""


class PreviousLayer(NamedTuple):
    """What the layer before has seen of one request."""

    module: Any
    inputs: Tensor
    """[tokens, D]."""

    keys: Tensor
    """[key_heads, tokens, head_dim], rotary embedding applied."""


@dataclass(frozen=True)
class LayerState:
    """One request right before a layer: what a part decides from."""

    key: str
    layer: int
    """The layer that comes next, 0..num_layers - 1."""

    num_layers: int
    hidden: Tensor
    """[tokens, D]: what the previous layer made; before layer 0, the embeddings."""

    is_visual: Tensor
    """[tokens], bool."""

    positions: Tensor
    """[tokens], int64: position ids of these tokens so far."""

    visual_tokens: tuple[int, ...]
    """[layer]: how many visual tokens each of the layers so far worked on."""

    prepared: Any
    """What the part's `prepare` returned for this request."""

    projected: Tensor | None
    """[tiles, n, D], of this request: what the part's `project` made before this layer."""

    cos: Tensor
    sin: Tensor
    """[tokens, head_dim], float32: the rotary embedding at `positions`."""

    _previous: PreviousLayer | None

    def attention(self, queries: Tensor) -> Tensor:
        """Rows of the previous layer's softmax attention weights.

        Computed from the layer's own queries and keys for these rows alone, so the model keeps its fast kernel, and no
        second pass through the layer touches the cache.

        Args:
            queries: [rows], int64: indices of the tokens that look.

        Returns:
            [heads, rows, tokens], float32; zero where a key stands behind its query.

        Raises:
            RuntimeError: before layer 0, where nothing has attended yet.
            FloatingPointError: a row is NaN.
        """
        if self._previous is None:
            raise RuntimeError("a part asked for attention weights before layer 0; expected layer 1 or later")
        module, inputs, keys = self._previous
        attention = module.self_attn
        query = attention.q_proj(module.input_layernorm(inputs[queries]))
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
        self.check_finite("attention", weights[..., 0])  # one logit that is not finite makes a whole row NaN
        return weights.flatten(0, 1).to(self.hidden.device)

    def check_finite(self, what: str, values: Tensor) -> None:
        """Raises FloatingPointError if tokens would be chosen by NaN or infinite values."""
        if not bool(values.isfinite().all()):
            raise FloatingPointError(
                f"the {what} of {self.key} before layer {self.layer} is NaN or infinite, so no tokens can be chosen by "
                "it. Check the checkpoint's weights; where they are sound, another dtype= has room for larger numbers."
            )


class TokenSelector(Protocol):
    """What the decoder asks of a part; `vico_eval.methods.parts.DecoderPart` describes it."""

    @property
    def renumbers(self) -> bool:
        """Whether the tokens that go on take positions 0, 1, 2, ... instead of keeping their own."""

    def bind(self, model: Any) -> TokenSelector:
        """The part for one `VicoInternVL`, with whatever it needs of that model."""

    def layers(self, num_layers: int) -> AbstractSet[int]:
        """The layers before which tokens may change."""

    def prepare(self, request: RequestPrompt) -> Any:
        """Anything about a request that is to be known from the decoder's input."""

    def project(self, layer: int, vit_tokens: Tensor) -> Tensor | None:
        """The batch's vision tokens [tiles, 1 + h*w, C], made [tiles, n, D] for what happens before a layer."""

    def next_tokens(self, state: LayerState) -> NextTokens | None:
        """The tokens that the layer is to work on; None for all there are, as they are."""
