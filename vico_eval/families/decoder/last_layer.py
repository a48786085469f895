"""A decoder's last layer in a prefill, of which only the last token's output is needed.

Shapes: batch = rows of the call; N = prompt tokens; D = width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from vico_eval.families.decoder.attention import LLAMA_LIKE, DecoderAttention, RotaryTables


class LastLayer(nn.Module):
    """A layer that only processes the last token, which attends to the keys and values of all tokens.

    The keys and values of the others are added to the cache; then the layer processes the last token like a decoding
    step.

    Args:
        layer: a decoder's layer.
        attention: computes its keys and values.
    """

    def __init__(self, layer: Any, attention: DecoderAttention) -> None:
        super().__init__()
        self.layer = layer
        self.attention = attention

    @property
    def input_layernorm(self) -> Any:
        """The layer's own norm, for code that uses its weights outside its forward pass."""
        return self.layer.input_layernorm

    @property
    def self_attn(self) -> Any:
        """The layer's own attention."""
        return self.layer.self_attn

    def forward(
        self,
        hidden: Tensor,
        *,
        attention_mask: Tensor | None,
        past_key_values: Any,
        position_embeddings: tuple[Tensor, Tensor],
        position_ids: Tensor | None = None,
        **arguments: Any,
    ) -> Tensor:
        """Return [batch, 1, D] for an input [batch, N, D], or [batch, N, D] without a cache; arguments as for the
        layer."""
        if hidden.shape[1] > 1 and past_key_values is not None:
            self._keep(hidden[:, :-1], RotaryTables(*(table[:, :-1] for table in position_embeddings)), past_key_values)
            hidden = hidden[:, -1:]
            position_embeddings = (position_embeddings[0][:, -1:], position_embeddings[1][:, -1:])
            if position_ids is not None:
                position_ids = position_ids[:, -1:]
            if attention_mask is not None and attention_mask.ndim == 4:  # flash attention's mask has no rows
                attention_mask = attention_mask[:, :, -1:]
        output: Tensor = self.layer(
            hidden,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            position_embeddings=position_embeddings,
            position_ids=position_ids,
            **arguments,
        )
        return output

    def _keep(self, hidden: Tensor, tables: RotaryTables, cache: Any) -> None:
        keys, values = self.attention.keys_and_values(self.layer, hidden, tables)
        cache.update(keys.transpose(1, 2), values.transpose(1, 2), self.layer.self_attn.layer_idx)


@contextmanager
def last_token_only(decoder: Any, attention: DecoderAttention = LLAMA_LIKE) -> Iterator[None]:
    """Within this context, a prefill of `decoder` only returns the hidden states of the last token, [batch, 1, D].

    Nothing changes if the last layer has sliding attention, whose cache drops keys during prefill, or if accelerate
    moves it between devices, which happens when the layer is called.

    Args:
        decoder: a causal language model's base model.
        attention: its layers' attention.
    """
    layers: nn.ModuleList = decoder.layers
    last: Any = layers[-1]
    kinds = getattr(decoder.config, "layer_types", None)
    if (kinds and kinds[-1] != "full_attention") or hasattr(last, "_hf_hook"):
        yield
        return
    layers[-1] = LastLayer(last, attention)
    try:
        yield
    finally:
        layers[-1] = last
