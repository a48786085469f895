"""InternLM2, the decoder of InternVL2 and InternVL-X, converted to transformers' Llama: configuration and weights.

It is Llama with other names and a fused, grouped projection to queries, keys and values. The rotary embedding needs no
permutation, because both rotate the two halves of a head.

Source: InternLM2's modelling and configuration code, as released with InternVL2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.core_model_loading import ConversionOps, WeightConverter

from vico_eval.errors import CheckpointError

_SIZES = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
_SETTINGS = (
    *("num_key_value_heads", "hidden_act", "max_position_embeddings", "initializer_range", "rms_norm_eps"),
    *("use_cache", "pad_token_id", "bos_token_id", "eos_token_id", "tie_word_embeddings", "torch_dtype", "dtype"),
)
"""Fields with the same name and default in both. Only sizes have other defaults, which no checkpoint relies on."""

_LAYER = r"^(language_model\.model\.layers\.\d+)"

RENAMED: tuple[tuple[str, str], ...] = (
    (r"^language_model\.model\.tok_embeddings\.", "language_model.model.embed_tokens."),
    (r"^language_model\.output\.", "language_model.lm_head."),
    (_LAYER + r"\.attention\.wo\.", r"\1.self_attn.o_proj."),
    (_LAYER + r"\.attention_norm\.", r"\1.input_layernorm."),
    (_LAYER + r"\.ffn_norm\.", r"\1.post_attention_layernorm."),
    (_LAYER + r"\.feed_forward\.w1\.", r"\1.mlp.gate_proj."),
    (_LAYER + r"\.feed_forward\.w3\.", r"\1.mlp.up_proj."),
    (_LAYER + r"\.feed_forward\.w2\.", r"\1.mlp.down_proj."),
)
"""Names in a whole model; `norm` has the same name, and the fused projection is split by `split_qkv`."""

FUSED = ".attention.wqkv"


def is_internlm2(values: Mapping[str, Any]) -> bool:
    """Return whether an `llm_config` is InternLM2's; some only have the architecture's name."""
    return values.get("model_type") == "internlm2" or values.get("architectures") == ["InternLM2ForCausalLM"]


def llama_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Convert InternLM2's configuration to Llama's, including `model_type`.

    Raises:
        CheckpointError: Llama doesn't support its positions.
        KeyError: a size is missing.
    """
    scaling = values.get("rope_scaling")
    if values.get("rope_pos_id_version") not in (None, "default"):
        raise CheckpointError(
            f"the language model counts positions by rope_pos_id_version {values['rope_pos_id_version']!r}; supported "
            "is 'default', as in every InternVL2 and InternVL-X checkpoint."
        )
    rope: dict[str, Any] = {"rope_type": "default"}
    if scaling is not None:
        rope = {"rope_type": scaling.get("type"), "factor": float(scaling["factor"])}
    if rope["rope_type"] not in ("default", "linear", "dynamic"):
        raise CheckpointError(
            f"the language model's rope_scaling is {scaling!r}; expected a type of linear or dynamic and a factor, as "
            "in InternLM2's own code."
        )
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": values.get("bias", True),  # InternLM2's own default, unlike Llama's
        "rope_parameters": rope | {"rope_theta": float(values.get("rope_theta", 10000))},
        **{name: values[name] for name in _SIZES},
        **{name: values[name] for name in _SETTINGS if name in values},
    }


class SplitGroupedQKV(ConversionOps):
    """Splits a fused weight or bias with rows in groups into query, key and value.

    A group is a key-value head: the rows of its query heads, of its key, and of its value. Query heads keep their
    order.
    """

    @torch.no_grad()
    def convert(
        self,
        input_dict: dict[str, Any],
        source_patterns: list[str],
        target_patterns: list[str],
        **kwargs: Any,
    ) -> dict[str, list[Tensor]]:
        """Implement transformers' interface: convert a fused tensor to three, by target pattern.

        [groups * (queries + 2) * head_dim, ...] becomes [heads * head_dim, ...] and twice [groups * head_dim, ...].
        """
        (fused,) = next(iter(input_dict.values()))
        parts = split_groups(fused, kwargs["config"].get_text_config())
        return {target: [part] for target, part in zip(target_patterns, parts, strict=True)}


def split_groups(fused: Tensor, text_config: PreTrainedConfig) -> tuple[Tensor, Tensor, Tensor]:
    """Return the query, key and value rows of a fused weight or bias; sizes as in `SplitGroupedQKV.convert`.

    Args:
        fused: [groups * (queries + 2) * head_dim, ...].
        text_config: the decoder's configuration, as Llama.
    """
    groups = text_config.num_key_value_heads
    queries = text_config.num_attention_heads // groups
    grouped = fused.unflatten(0, (groups, queries + 2, -1))  # [groups, queries + 2, head_dim, ...]
    parts = grouped[:, :queries], grouped[:, queries : queries + 1], grouped[:, queries + 1 :]
    query, key, value = (part.flatten(0, 2) for part in parts)
    return query, key, value


def split_qkv() -> WeightConverter:
    """Return transformers' conversion of the fused projections."""
    targets = [".self_attn.q_proj", ".self_attn.k_proj", ".self_attn.v_proj"]
    return WeightConverter(source_patterns=FUSED, target_patterns=targets, operations=[SplitGroupedQKV()])


def fused_problems(shapes: Mapping[str, Sequence[int]], text_config: PreTrainedConfig) -> list[str]:
    """Return the problems of fused projections by name; after the split their shape is unknown.

    Args:
        shapes: shape by name of a checkpoint's weights; other names are ignored.
        text_config: the decoder's configuration, as Llama.
    """
    head_dim = text_config.hidden_size // text_config.num_attention_heads
    rows = (text_config.num_attention_heads + 2 * text_config.num_key_value_heads) * head_dim
    expected = {"weight": [rows, text_config.hidden_size], "bias": [rows]}
    return [
        f"{name} has shape {list(shape)}, expected {wanted}"
        for kind, wanted in expected.items()
        for name, shape in shapes.items()
        if name.endswith(f"{FUSED}.{kind}") and list(shape) != wanted
    ]
