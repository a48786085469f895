"""Facts of a Qwen-VL checkpoint for parts of methods."""

from __future__ import annotations

from typing import Any

from vico_eval.families.encoder_attention import MEAN
from vico_eval.methods.interface import (
    CONNECTOR_INPUTS,
    DEFAULT_SCORES,
    ENCODER_ATTENTION,
    ENCODER_KEYS,
    QUESTION,
    ModelFacts,
    PixelFacts,
    ScoreSource,
)

FAMILY = "qwen_vl"


def facts_of(config: Any, checkpoint: str, image_processor: Any) -> ModelFacts:
    """Return a checkpoint's facts from its configuration, the name given by the user, and its image processor.

    The encoder has no class token. Most layers of Qwen2.5-VL's encoder attend within windows; scores are taken from the
    last layer with full attention. All layers of Qwen3-VL's encoder attend to the whole image.
    """
    vision, text = config.vision_config, config.text_config
    whole = getattr(vision, "fullatt_block_indexes", None)
    windowed = frozenset(() if whole is None else set(range(vision.depth)) - set(whole))
    side = vision.patch_size * vision.spatial_merge_size
    return ModelFacts(
        checkpoint=checkpoint,
        family=FAMILY,
        num_layers=text.num_hidden_layers,
        num_heads=text.num_attention_heads,
        pixels=PixelFacts(token_side=side, max_tokens=image_processor.size["longest_edge"] // side**2),
        offers=frozenset({ENCODER_ATTENTION, ENCODER_KEYS, QUESTION, CONNECTOR_INPUTS}),
        score_sources=frozenset({MEAN}),
        default_scores=ScoreSource(MEAN, DEFAULT_SCORES.layer if whole is None else max(whole) - vision.depth),
        num_vision_layers=vision.depth,
        windowed_layers=windowed,
    )
