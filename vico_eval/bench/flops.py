"""Floating-point operations of a decoder's prefill, from the tokens that each layer really worked on.

The bound that stands beside a measured speed-up: what it would be if time were operations. A multiplication and an
addition are two. Counted are the matrix products of the layers (2 for every weight and token), attention under a causal
mask, and the logits of the last token. Not counted are norms, rotary embedding, activations, and what a method itself
computes to choose tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vico_eval.errors import ConfigError


@dataclass(frozen=True)
class PrefillFlops:
    """Operations of one request's prefill."""

    linear: int
    """Projections and MLPs."""

    attention: int
    """Scores and weighted sums, of keys up to the query only. Kernels that work on the full square do twice as much."""

    head: int
    """Logits of the last token."""

    @property
    def total(self) -> int:
        """All of them."""
        return self.linear + self.attention + self.head


def prefill_flops(text_config: Any, tokens_per_layer: Sequence[int]) -> PrefillFlops:
    """Operations of a prefill whose layers worked on these numbers of tokens.

    With P weights in the layers' matrices, L layers, attention width a, model width d, vocabulary V and N tokens in
    every layer: 2 P N + 2 L a N^2 + 2 d V.

    Args:
        text_config: of transformers' Qwen3, Qwen2 or Llama.
        tokens_per_layer: [L], visual and text tokens together.

    Raises:
        ConfigError: a decoder with experts, or counts for another number of layers.
    """
    if len(tokens_per_layer) != text_config.num_hidden_layers:
        raise ConfigError(
            f"got token counts of {len(tokens_per_layer)} layers for a decoder of {text_config.num_hidden_layers}; "
            "expected one for each layer."
        )
    width = attention_width(text_config)
    return PrefillFlops(
        linear=2 * layer_weights(text_config) * sum(tokens_per_layer),
        attention=2 * width * sum(tokens**2 for tokens in tokens_per_layer),
        head=2 * text_config.hidden_size * text_config.vocab_size,
    )


def attention_width(text_config: Any) -> int:
    """Width of a layer's queries, all heads together."""
    heads = int(text_config.num_attention_heads)
    return heads * int(getattr(text_config, "head_dim", None) or text_config.hidden_size // heads)


def layer_weights(text_config: Any) -> int:
    """Weights in the matrices of one layer: queries, keys, values, output and the gated MLP's three.

    Raises:
        ConfigError: a decoder with experts, whose tokens don't meet every weight.
    """
    if getattr(text_config, "num_experts", None):
        raise ConfigError(
            f"the decoder is a mixture of {text_config.num_experts} experts, and the operations of a dense one were "
            "asked for; expected a dense Qwen3, Qwen2 or Llama."
        )
    queries = attention_width(text_config)
    keys = queries * text_config.num_key_value_heads // text_config.num_attention_heads
    attention = 2 * text_config.hidden_size * (queries + keys)
    return int(attention + 3 * text_config.hidden_size * text_config.intermediate_size)
