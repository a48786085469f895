"""`config.json` in the layout that InternVL is released in (`internvl_chat`): the inverse of what `config` reads.

Source: the configuration and modelling code released with InternVL3.5-Flash.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from vico_eval.errors import CheckpointError
from vico_eval.families.internvl.config import VicoInternVLConfig
from vico_eval.families.internvl.prompts import get_template

RELEASED_ROUTER_HEADS = 16
RELEASED_TILE_TOKENS = (256, 64)
"""Both are constants in the released code and in LMDeploy."""

AUTO_MAP = {
    "AutoConfig": "configuration_internvl_chat.InternVLChatConfig",
    "AutoModel": "modeling_internvl_chat.InternVLChatModel",
    "AutoModelForCausalLM": "modeling_internvl_chat.InternVLChatModel",
}
"""Locations of the authors' classes in files beside `config.json`, for transformers."""

# transformers adds these to every configuration; releases only have those that their model uses.
_KEPT_OF_EVERY_CONFIG = frozenset({"architectures", "model_type"})


def not_in_released(config: VicoInternVLConfig) -> list[str]:
    """Return sentences about what the released layout can't represent; empty if nothing is lost.

    Raises:
        CheckpointError: the other weights need a part that can't be represented, or the router's number of
            heads differs from the released code's.
    """
    parts = config.parts
    if "pvtc" in parts or "lvtc" in parts:
        part = "LVTC's projectors" if "lvtc" in parts else "InternVL-X's projector (PVTC)"
        raise CheckpointError(
            f"the checkpoint has {part}, which InternVL's released layout can't represent, and its other weights are "
            "trained with them. Export a checkpoint without them; this one runs in this package only."
        )
    if ("low_connector" in parts) != ("router" in parts):
        has, lacks = ("low connector", "router") if "low_connector" in parts else ("router", "low connector")
        raise CheckpointError(
            f"the checkpoint has a {has} and no {lacks}; the released layout has both (Flash) or neither. Export it "
            "when both are trained."
        )
    if "router" in parts and config.router_num_heads != RELEASED_ROUTER_HEADS:
        raise CheckpointError(
            f"the router has {config.router_num_heads} attention heads; the released code always runs "
            f"{RELEASED_ROUTER_HEADS}, with other scores. Train a router with router_num_heads="
            f"{RELEASED_ROUTER_HEADS}."
        )
    return _lost_of_flash(config) + _lost_of_prompts(config)


def _lost_of_flash(config: VicoInternVLConfig) -> list[str]:
    lost = []
    router = config.parts.get("router")
    if "image_router" in config.parts:
        lost.append("The image-level router and its threshold are left out: the released layout can't represent them.")
    if router is not None and router["relative_threshold"] is None:
        lost.append(
            "The relative rule is off in this checkpoint, which the released layout can't represent. It is written as "
            "0.0, the closest value: the released rule compresses only tiles above a request's lowest score, so the "
            "tile with that score, or a single tile, is never compressed. In this package absolute_only=true routes as "
            "before."
        )
    if router is not None and (config.num_high_tokens, config.num_low_tokens) != RELEASED_TILE_TOKENS:
        high, low = RELEASED_TILE_TOKENS
        lost.append(
            f"A tile of this checkpoint takes {config.num_high_tokens} or {config.num_low_tokens} visual tokens; the "
            f"released Flash code and LMDeploy support only {high} or {low} and can't serve it. This package can."
        )
    return lost


def _lost_of_prompts(config: VicoInternVLConfig) -> list[str]:
    lost = []
    if config.system_message not in (None, get_template(config.template).system_message):
        lost.append(
            f"The released code uses the system message of its template {config.template!r} and ignores config.json's. "
            f"This checkpoint's own is {config.system_message!r}: pass it with the prompt."
        )
    if config.num_frames != (default := VicoInternVLConfig().num_frames):
        lost.append(
            f"The number of frames of a video is not written: it is {config.num_frames} here and {default} by default. "
            f"Pass num_frames={config.num_frames}."
        )
    return lost


def released_config(config: VicoInternVLConfig, dtype: torch.dtype) -> dict[str, Any]:
    """Return the content of `config.json`, without `AUTO_MAP`, which refers to the authors' code.

    Args:
        config: a configuration that `not_in_released` accepts.
        dtype: the weights' dtype.
    """
    stored = str(dtype).removeprefix("torch.")
    text_config = config.text_config
    flash = {}
    router = config.parts.get("router")
    if router is not None:
        # Other releases lack these. LMDeploy builds the Flash parts if flash_mode exists, even if false.
        flash = {
            "flash_absolute_threshold": router["absolute_threshold"],
            "flash_mode": True,
            "flash_relative_threshold": router["relative_threshold"] or 0.0,
        }
    return {
        "architectures": ["InternVLChatModel"],
        "model_type": "internvl_chat",
        "downsample_ratio": config.downsample_ratio,
        "dynamic_image_size": True,
        **flash,
        "force_image_size": config.tile_size,
        "hidden_size": text_config.hidden_size,
        "image_fold": None,
        "llm_config": _llm_config(text_config) | {"torch_dtype": stored},
        "max_dynamic_patch": config.max_tiles,
        "min_dynamic_patch": config.min_tiles,
        "output_attentions": False,
        "pad2square": False,
        "ps_version": config.ps_version,
        "select_layer": -1,
        "system_message": config.system_message,
        "template": config.template,
        "tie_word_embeddings": text_config.tie_word_embeddings,
        "torch_dtype": stored,
        "use_backbone_lora": 0,
        "use_llm_lora": 0,
        "use_thumbnail": config.use_thumbnail,
        "vision_config": _vision_config(config) | {"torch_dtype": stored},
    }


def _llm_config(text_config: PreTrainedConfig) -> dict[str, Any]:
    """Return a decoder's configuration with the names in transformers when InternVL was released."""
    of_every_config = PreTrainedConfig().to_dict().keys() - _KEPT_OF_EVERY_CONFIG
    values = {name: value for name, value in text_config.to_dict().items() if name not in of_every_config}
    values["architectures"] = [MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[text_config.model_type]]
    rope = dict(values.pop("rope_parameters"))
    values["rope_theta"] = rope.pop("rope_theta")
    # Early transformers versions read `type`, later ones `rope_type`; releases have both.
    values["rope_scaling"] = None if rope["rope_type"] == "default" else {**rope, "type": rope["rope_type"]}
    if set(values.get("layer_types") or ()) == {"full_attention"}:
        del values["layer_types"]  # derived
    if "num_local_experts" in values:
        values["num_experts"] = values.pop("num_local_experts")
    return values


def _vision_config(config: VicoInternVLConfig) -> dict[str, Any]:
    """Return InternViT's configuration; training regularisation without a field in transformers is off."""
    vision = config.vision_config
    return {
        "architectures": ["InternVisionModel"],
        "model_type": "intern_vit_6b",
        "attention_dropout": vision.attention_dropout,
        "drop_path_rate": 0.0,
        "dropout": vision.hidden_dropout_prob,
        "hidden_act": vision.hidden_act,
        "hidden_size": vision.hidden_size,
        "image_size": config.tile_size,
        "initializer_factor": vision.layer_scale_init_value,
        "initializer_range": vision.initializer_range,
        "intermediate_size": vision.intermediate_size,
        "layer_norm_eps": vision.layer_norm_eps,
        "norm_type": vision.norm_type,
        "num_attention_heads": vision.num_attention_heads,
        "num_channels": vision.num_channels,
        "num_hidden_layers": vision.num_hidden_layers,
        "patch_size": config.tile_size // config.vit_grid,
        "qk_normalization": vision.use_qk_norm,
        "qkv_bias": vision.attention_bias,
        "use_flash_attn": False,
    }
