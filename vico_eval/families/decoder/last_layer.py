"""A decoder's last layer in a prefill: nothing but the last token's output is ever read.

Shapes: batch = rows of the call; N = prompt tokens; D = width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from vico_eval.families.decoder.attention import LLAMA_LIKE, DecoderAttention, RotaryTables


class LastLayer(nn.Module):
    """A layer that works on the last of the tokens alone, which sees the keys and values of all.

    The others' keys and values go to the cache; then the layer takes the last token as in any step of decoding.

    Args:
        layer: of a decoder.
        attention: how it makes its keys and values.
    """

    def __init__(self, layer: Any, attention: DecoderAttention) -> None:
        super().__init__()
        self.layer = layer
        self.attention = attention

    @property
    def input_layernorm(self) -> Any:
        """The layer's own, for whoever computes with its weights beside its forward."""
        return self.layer.input_layernorm

    @property
    def self_attn(self) -> Any:
        """The layer's own."""
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
        """[batch, 1, D] of [batch, N, D], without a cache [batch, N, D]; arguments as for the layer."""
        if hidden.shape[1] > 1 and past_key_values is not None:
            self._keep(hidden[:, :-1], RotaryTables(*(table[:, :-1] for table in position_embeddings)), past_key_values)
            hidden = hidden[:, -1:]
            position_embeddings = (position_embeddings[0][:, -1:], position_embeddings[1][:, -1:])
            if position_ids is not None:
                position_ids = position_ids[:, -1:]
            if attention_mask is not None and attention_mask.ndim == 4:  # flash attention's has no rows
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
    """Inside, a prefill of `decoder` gives the hidden states of the last token alone, [batch, 1, D].

    Nothing changes where the last layer has sliding attention, whose cache drops keys while they are filled in, or is
    moved between devices by accelerate, which acts when the layer is called.

    Args:
        decoder: a causal language model's base model.
        attention: of its layers.
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
