"""Floating-point operations of a request's stages, from the tiles and tokens that each really worked on.

The bound that stands beside a measured speed-up: what it would be if time were operations. A multiplication and an
addition are two. Counted are matrix products (2 for every weight and token), convolution, attention (in the decoder
under a causal mask), and the logits of the last token. Not counted are norms, rotary embedding, activations, and what a
method itself computes to choose tokens.

Shapes: C = vision width; D = decoder width; h*w = vision tokens of a tile without the class token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from vico_eval.errors import ConfigError

if TYPE_CHECKING:
    from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class PrefillFlops:
    """Operations of one request's prefill."""

    linear: int
    """Projections and MLPs."""

    attention: int
    """Scores and weighted sums, of keys up to the query only. Kernels that work on the full square do twice as much."""

    last_query: int
    """Scores and weighted sums of a layer that has the last token's query alone."""

    head: int
    """Logits of the last token."""

    @property
    def total(self) -> int:
        """All of them."""
        return self.linear + self.attention + self.last_query + self.head

    @property
    def full_square(self) -> int:
        """What torch's `FlopCounterMode` counts: it takes causal attention for the full square."""
        return self.total + self.attention


def flop_counter() -> FlopCounterMode:
    """PyTorch's counter of the operations that run inside of it, with the kernels of CPUs that its list may lack.

    These are attention, before PyTorch 2.15, and the linear layers of `vico_eval.engine.cpu`.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

    def attention(query: Any, key: Any, value: Any, *_: object, **__: object) -> int:
        return int(sdpa_flop_count(query, key, value))

    def linear(inputs: Any, weight: Any, *_: object, **__: object) -> int:
        return int(2 * prod(inputs) * weight[0])

    kernels: dict[Any, Callable[..., int]] = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention}
    if torch.backends.mkldnn.is_available():
        kernels[torch.ops.mkldnn._linear_pointwise] = linear
    return FlopCounterMode(display=False, custom_mapping=kernels)


def prefill_flops(text_config: Any, tokens_per_layer: Sequence[int], *, last_token_only: bool = False) -> PrefillFlops:
    """Operations of a prefill whose layers worked on these numbers of tokens.

    With P weights in the layers' matrices, L layers, attention width a, model width d, vocabulary V and N tokens in
    every layer: 2 P N + 2 L a N^2 + 2 d V.

    Args:
        text_config: of transformers' Qwen3, Qwen2 or Llama.
        tokens_per_layer: [L], visual and text tokens together.
        last_token_only: in the last layer, the others are keys and values and nothing more
            (`vico_eval/families/decoder/last_layer.py`). The bounds of Table 4 do without.

    Raises:
        ConfigError: a decoder with experts, or counts for another number of layers.
    """
    if len(tokens_per_layer) != text_config.num_hidden_layers:
        raise ConfigError(
            f"got token counts of {len(tokens_per_layer)} layers for a decoder of {text_config.num_hidden_layers}; "
            "expected one for each layer."
        )
    width, weights = attention_width(text_config), layer_weights(text_config)
    head = 2 * text_config.hidden_size * text_config.vocab_size
    if not last_token_only:
        attention = 2 * width * sum(tokens**2 for tokens in tokens_per_layer)
        return PrefillFlops(2 * weights * sum(tokens_per_layer), attention, 0, head)
    *whole, last = tokens_per_layer
    keys_values = 2 * text_config.hidden_size * key_width(text_config)
    return PrefillFlops(
        linear=2 * (weights * (sum(whole) + 1) + keys_values * (last - 1)),
        attention=2 * width * sum(tokens**2 for tokens in whole),
        last_query=4 * width * last,
        head=head,
    )


def decode_flops(text_config: Any, tokens_per_layer: Sequence[int], num_steps: int) -> int:
    """Operations of one request's decoding steps behind its prefill.

    Step t sees the prompt's tokens of a layer and t of the answer's: 2 P + 4 a (N + t) + 2 d V.

    Args:
        text_config: as in `prefill_flops`.
        tokens_per_layer: [L], of the prompt.
        num_steps: one fewer than the tokens generated; prefill makes the first.
    """
    layers, width = text_config.num_hidden_layers, attention_width(text_config)
    per_step = 2 * layer_weights(text_config) * layers + 2 * text_config.hidden_size * text_config.vocab_size
    seen = num_steps * sum(tokens_per_layer) + layers * num_steps * (num_steps + 1) // 2
    return int(num_steps * per_step + 4 * width * seen)


def vision_flops(config: Any) -> int:
    """Operations of the vision encoder on one tile.

    With n = 1 + h*w tokens, width C, MLP width I, L layers and patches of p x p px: 2 L n (4 C^2 + 2 C I) + 4 L n^2 C,
    attention in both directions, and the patch embedding, 2 h*w 3 p^2 C. InternViT-300M at 448 px: 0.72 TFLOP.

    Args:
        config: a `VicoInternVLConfig`.
    """
    vision, patches, patch = config.vision_config, config.vit_grid**2, config.tile_size // config.vit_grid
    tokens, wide, layers = 1 + patches, vision.hidden_size, vision.num_hidden_layers
    weights = 4 * wide**2 + 2 * wide * vision.intermediate_size
    embedding = 2 * patches * vision.num_channels * patch**2 * wide
    return int(layers * (2 * tokens * weights + 4 * tokens**2 * wide) + embedding)


def connector_flops(config: Any, num_high: int, num_low: int) -> int:
    """Operations of the connectors on tiles of which each goes through one.

    A token of the high connector is made of b x b vision tokens by b^2 C D + D^2 weights, one of the low connector of
    2b x 2b by (2b)^2 C 2D + 4 D^2 + 2 D^2 (`vico_eval/families/internvl/connectors.py`).

    Args:
        config: a `VicoInternVLConfig`.
        num_high, num_low: tiles of each connector.

    Raises:
        ConfigError: another connector than InternVL's MLP.
    """
    if "pvtc" in config.parts:
        raise ConfigError("there is no formula for the operations of PVTC; expected InternVL's connector.")
    vision, wide = config.vision_config.hidden_size, config.text_config.hidden_size
    block = config.high_block**2
    high = config.num_high_tokens * (block * vision * wide + wide**2)
    low = config.num_low_tokens * (4 * block * vision * 2 * wide + 4 * wide**2 + 2 * wide**2)
    return int(2 * (num_high * high + num_low * low))


def router_flops(config: Any) -> int:
    """Operations of the router on one tile.

    Each of its four attentions has one query, through 4 C^2 weights, that meets all h*w tokens twice in each of its
    heads, over their full width: 8 C^2 + 4 heads h*w C. Then four blocks of 8 C^2 weights and a gate of 2 C
    (`vico_eval/families/internvl/router.py`).

    Args:
        config: a `VicoInternVLConfig`.
    """
    wide, tokens, heads = config.vision_config.hidden_size, config.vit_grid**2, config.router_num_heads
    attention = 2 * 4 * wide**2 + 4 * heads * tokens * wide
    return int(4 * attention + 4 * 2 * 8 * wide**2 + 2 * 2 * wide)


def score_flops(vision_config: Any, num_patches: int, num_rows: int) -> int:
    """Operations of the encoder's scores of one tile, which methods choose tokens by: what `LayerInput` adds.

    With r rows queries, 2 r C^2, and logits, 2 r (1 + N) C.

    Args:
        vision_config: of InternViT.
        num_patches: N, of a tile without the class token.
        num_rows: of attention that are looked at: 1, the class token's, or N.
    """
    wide = vision_config.hidden_size
    return int(2 * num_rows * wide**2 + 2 * num_rows * (1 + num_patches) * wide)


def attention_width(text_config: Any) -> int:
    """Width of a layer's queries, all heads together."""
    heads = int(text_config.num_attention_heads)
    return heads * int(getattr(text_config, "head_dim", None) or text_config.hidden_size // heads)


def key_width(text_config: Any) -> int:
    """Width of a layer's keys, and of its values."""
    return attention_width(text_config) * int(text_config.num_key_value_heads) // int(text_config.num_attention_heads)


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
    attention = 2 * text_config.hidden_size * (attention_width(text_config) + key_width(text_config))
    return int(attention + 3 * text_config.hidden_size * text_config.intermediate_size)
