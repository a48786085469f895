"""Floating-point operations of a request's stages, from the tiles and tokens that each stage actually processed.

Their ratio is the bound shown beside a measured speed-up: the speed-up if time were proportional to operations. A
multiplication and an addition count as two. The count includes matrix products (2 per weight and token), convolution,
attention (causal in the decoder) and the logits of the last token. It excludes norms, rotary embeddings, activations,
and the method's own computations to choose tokens.

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
    """The operations of one request's prefill."""

    linear: int
    """Projections and MLPs."""

    attention: int
    """Scores and weighted sums over the keys up to each query. Kernels that compute the full square need twice that."""

    last_query: int
    """Scores and weighted sums of a layer in which only the last token has a query."""

    head: int
    """Logits of the last token."""

    @property
    def total(self) -> int:
        """The sum of all operations."""
        return self.linear + self.attention + self.last_query + self.head

    @property
    def full_square(self) -> int:
        """The count of torch's `FlopCounterMode`, which counts causal attention as the full square."""
        return self.total + self.attention


def flop_counter() -> FlopCounterMode:
    """Return PyTorch's operation counter, extended by CPU kernels that it may not know.

    These are attention before PyTorch 2.15, and the linear layers of `vico_eval.engine.cpu`.
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
    """Return the operations of a prefill, given the number of tokens in each layer.

    With P weights in the layers' matrices, L layers, attention width a, model width d, vocabulary V and N tokens in
    every layer: 2 P N + 2 L a N^2 + 2 d V.

    Args:
        text_config: a transformers configuration of Qwen3, Qwen2 or Llama.
        tokens_per_layer: [L], visual and text tokens together.
        last_token_only: whether the last layer computes only keys and values for all tokens but the last
            (`vico_eval/families/decoder/last_layer.py`). The bounds of Table 4 don't use this.

    Raises:
        ConfigError: the decoder has experts, or the counts are for another number of layers.
    """
    if len(tokens_per_layer) != text_config.num_hidden_layers:
        raise ConfigError(
            f"got token counts for {len(tokens_per_layer)} layers, but the decoder has "
            f"{text_config.num_hidden_layers}; expected one count per layer."
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
    """Return the operations of one request's decoding steps after its prefill.

    In step t a layer attends to its prompt tokens and t tokens of the answer: 2 P + 4 a (N + t) + 2 d V.

    Args:
        text_config: as in `prefill_flops`.
        tokens_per_layer: [L], the prompt's tokens.
        num_steps: one less than the number of generated tokens, because prefill generates the first.
    """
    layers, width = text_config.num_hidden_layers, attention_width(text_config)
    per_step = 2 * layer_weights(text_config) * layers + 2 * text_config.hidden_size * text_config.vocab_size
    seen = num_steps * sum(tokens_per_layer) + layers * num_steps * (num_steps + 1) // 2
    return int(num_steps * per_step + 4 * width * seen)


def vision_flops(config: Any) -> int:
    """Return the operations of the vision encoder on one tile.

    With n = 1 + h*w tokens, width C, MLP width I, L layers and patches of p x p px: 2 L n (4 C^2 + 2 C I) + 4 L n^2 C
    for bidirectional attention, plus 2 h*w 3 p^2 C for the patch embedding. InternViT-300M at 448 px: 0.72 TFLOP.

    Args:
        config: a `VicoInternVLConfig`.
    """
    vision, patches, patch = config.vision_config, config.vit_grid**2, config.tile_size // config.vit_grid
    tokens, wide, layers = 1 + patches, vision.hidden_size, vision.num_hidden_layers
    weights = 4 * wide**2 + 2 * wide * vision.intermediate_size
    embedding = 2 * patches * vision.num_channels * patch**2 * wide
    return int(layers * (2 * tokens * weights + 4 * tokens**2 * wide) + embedding)


def connector_flops(config: Any, num_high: int, num_low: int) -> int:
    """Return the operations of the connectors, with each tile going through one of them.

    The high connector makes a token from b x b vision tokens with b^2 C D + D^2 weights, the low connector from 2b x 2b
    with (2b)^2 C 2D + 4 D^2 + 2 D^2 (`vico_eval/families/internvl/connectors.py`).

    Args:
        config: a `VicoInternVLConfig`.
        num_high, num_low: the number of tiles for each connector.

    Raises:
        ConfigError: the connector is not InternVL's MLP.
    """
    if "pvtc" in config.parts:
        raise ConfigError("there is no formula for the operations of PVTC; expected InternVL's connector.")
    vision, wide = config.vision_config.hidden_size, config.text_config.hidden_size
    block = config.high_block**2
    high = config.num_high_tokens * (block * vision * wide + wide**2)
    low = config.num_low_tokens * (4 * block * vision * 2 * wide + 4 * wide**2 + 2 * wide**2)
    return int(2 * (num_high * high + num_low * low))


def router_flops(config: Any) -> int:
    """Return the operations of the router on one tile.

    Each of its four attentions has 4 C^2 weights and one query, which is multiplied with all h*w tokens twice per head,
    over their full width: 8 C^2 + 4 heads h*w C. Four blocks of 8 C^2 weights and a gate of 2 C follow
    (`vico_eval/families/internvl/router.py`).

    Args:
        config: a `VicoInternVLConfig`.
    """
    wide, tokens, heads = config.vision_config.hidden_size, config.vit_grid**2, config.router_num_heads
    attention = 2 * 4 * wide**2 + 4 * heads * tokens * wide
    return int(4 * attention + 4 * 2 * 8 * wide**2 + 2 * 2 * wide)


def score_flops(vision_config: Any, num_patches: int, num_rows: int) -> int:
    """Return the operations of one tile's encoder scores, by which methods choose tokens: the work of `LayerInput`.

    With r rows these are 2 r C^2 for queries and 2 r (1 + N) C for logits.

    Args:
        vision_config: InternViT's configuration.
        num_patches: N, the patches of a tile without the class token.
        num_rows: r, the number of attention rows used: 1 (the class token's) or N.
    """
    wide = vision_config.hidden_size
    return int(2 * num_rows * wide**2 + 2 * num_rows * (1 + num_patches) * wide)


def attention_width(text_config: Any) -> int:
    """Return the width of a layer's queries, over all heads."""
    heads = int(text_config.num_attention_heads)
    return heads * int(getattr(text_config, "head_dim", None) or text_config.hidden_size // heads)


def key_width(text_config: Any) -> int:
    """Return the width of a layer's keys, which is also that of its values."""
    return attention_width(text_config) * int(text_config.num_key_value_heads) // int(text_config.num_attention_heads)


def layer_weights(text_config: Any) -> int:
    """Return the number of weights in one layer's matrices: queries, keys, values, output and the gated MLP's three.

    Raises:
        ConfigError: the decoder has experts, so not every token uses every weight.
    """
    if getattr(text_config, "num_experts", None):
        raise ConfigError(
            f"the decoder is a mixture of {text_config.num_experts} experts, for which there is no formula; expected "
            "a dense Qwen3, Qwen2 or Llama."
        )
    attention = 2 * text_config.hidden_size * (attention_width(text_config) + key_width(text_config))
    return int(attention + 3 * text_config.hidden_size * text_config.intermediate_size)
