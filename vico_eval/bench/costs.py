"""The cost figures in a run's record, from which reports count operations without the model."""

from __future__ import annotations

from vico_eval.bench.flops import (
    attention_width,
    connector_flops,
    key_width,
    layer_weights,
    router_flops,
    score_flops,
    vision_flops,
)
from vico_eval.engine.loading import Found
from vico_eval.errors import ConfigError
from vico_eval.families.encoder_attention import CLS
from vico_eval.families.internvl.checkpoint import Checkpoint
from vico_eval.families.internvl.config import VicoInternVLConfig
from vico_eval.methods.interface import ENCODER_ATTENTION, HIGH, Widths
from vico_eval.methods.registry import Method
from vico_eval.runs.costs import ChoiceCosts, ModelCosts

_WITHOUT_FORMULA = frozenset({"pvtc", "lvtc"})
"""Parts of checkpoints whose operations have no formula."""


def model_costs(found: Found) -> ModelCosts | None:
    """Return the costs of a model, whether or not its weights are loaded; None if there is no formula."""
    checkpoint, donor = found.checkpoint, found.donor
    if not isinstance(checkpoint, Checkpoint) or _WITHOUT_FORMULA & checkpoint.config.parts.keys():
        return None
    config, text = checkpoint.config, checkpoint.config.text_config
    lender = donor.config if isinstance(donor, Checkpoint) else config
    try:
        weights = layer_weights(text)
    except ConfigError:  # mixture of experts
        return None
    return ModelCosts(
        encoder=vision_flops(config),
        # A lent router uses its own checkpoint's vision encoder, so the tiles are encoded twice.
        router=router_flops(lender) + (0 if lender is config else vision_flops(lender)),
        high=connector_flops(config, 1, 0),
        low=connector_flops(lender, *((1, 0) if _compresses_behind_it(found) else (0, 1))),
        token=2 * weights,
        pair=2 * attention_width(text),
        head=2 * text.hidden_size * text.vocab_size,
        cached=2 * key_width(text),
        choices=_choices(found.method, checkpoint),
    )


def _choices(method: Method, checkpoint: Checkpoint) -> tuple[ChoiceCosts, ...] | None:
    """Return the costs of choosing tokens, including the encoder's scores; None if a part does not state its costs."""
    config, facts, widths = checkpoint.config, checkpoint.facts, _widths(checkpoint.config)
    found = [part.choice_costs(facts, widths) for part in method.parts]
    if method.selection is not None and ENCODER_ATTENTION in method.selection.needs:
        patches = config.vit_grid**2
        rows = 1 if method.selection.score_source.rows == CLS else patches
        found.append((ChoiceCosts(once=score_flops(config.vision_config, patches, rows)),))
    return None if None in found else tuple(cost for costs in found for cost in costs or ())


def _widths(config: VicoInternVLConfig) -> Widths:
    text, vision = config.text_config, config.vision_config
    return Widths(
        model=text.hidden_size,
        queries=attention_width(text),
        keys=key_width(text),
        encoder_key=vision.hidden_size // vision.num_attention_heads,
        connector_input=config.high_block**2 * vision.hidden_size,
        connector_operations=connector_flops(config, 1, 0) // config.num_high_tokens,
    )


def _compresses_behind_it(found: Found) -> bool:
    """Whether compressed tiles also go through the high connector, for example to average its tokens."""
    connector = found.method.connector
    return connector is not None and all(route.connector == HIGH.connector for route in connector.routes)
