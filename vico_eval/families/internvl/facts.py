"""Facts of an InternVL checkpoint for parts of methods."""

from __future__ import annotations

from math import isqrt

from vico_eval.families.encoder_attention import CLS, MEAN
from vico_eval.families.internvl.config import VicoInternVLConfig
from vico_eval.methods.interface import (
    CONNECTOR_INPUTS,
    ENCODER_ATTENTION,
    ENCODER_KEYS,
    HIGH,
    LOW,
    P_COMPRESS,
    QUESTION,
    ModelFacts,
    TileFacts,
)

FAMILY = "internvl"


def facts_of(config: VicoInternVLConfig, checkpoint: str) -> ModelFacts:
    """Return a checkpoint's facts from its configuration and the name given by the user."""
    parts = config.parts
    return ModelFacts(
        checkpoint=checkpoint,
        family=FAMILY,
        num_layers=config.text_config.num_hidden_layers,
        num_heads=config.text_config.num_attention_heads,
        tile=TileFacts(vision_side=config.vit_grid, visual_side=isqrt(config.num_high_tokens)),
        connectors=frozenset({HIGH.connector, LOW.connector} if "low_connector" in parts else {HIGH.connector}),
        parts=parts,
        trained_in=frozenset({"lvtc"} & parts.keys()),
        offers=frozenset(
            {ENCODER_ATTENTION, ENCODER_KEYS, QUESTION}
            | ({P_COMPRESS} if "router" in parts else set())
            # PVTC also uses a token's neighbours, so there is no single input to mix.
            | ({CONNECTOR_INPUTS} if "pvtc" not in parts else set())
        ),
        score_sources=frozenset({CLS, MEAN}),
        num_vision_layers=config.vision_config.num_hidden_layers,
    )
