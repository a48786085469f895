"""ViCO's Table 4 on one machine: the speed-up of the time to first token from removing visual tokens.

One request at a time is run on random embeddings: 10 tiles with 0, 25, 50 or 75% of their visual tokens removed, and 64
or 512 text tokens. The speed-ups are for the language model alone, and for vision encoder and language model together.

Differs: the paper sends 32 concurrent requests to a serving engine. Router and connectors are left out here and in the
bounds; they are below 1% of the operations at 8B.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import PreTrainedConfig

from vico_eval.bench.flops import prefill_flops, vision_flops
from vico_eval.bench.local import TILES
from vico_eval.bench.records import in_rounds
from vico_eval.families.clock import seconds_on
from vico_eval.families.internvl.config import VicoInternVLConfig
from vico_eval.families.internvl.modeling import VicoInternVL
from vico_eval.families.internvl.tiling import normalise
from vico_eval.report.speed.table4 import PROMPTS, VISUAL_TOKENS

ENCODER = "vision encoder"

DENSE = ("qwen3", "qwen2", "llama")
"""The `model_type` of each decoder whose operations have a formula."""


class Bounds(NamedTuple):
    """Speed-ups by operations; None if there is no formula."""

    llm_only: float | None
    end_to_end: float | None


def measure_table4(model: VicoInternVL, *, rounds: int, minutes: float) -> dict[str, Any]:
    """Measure seconds and speed-ups of every cell, [rounds], and compute their bounds.

    Args:
        model: the model on its device; any part in its decoder is removed.
        rounds: the maximum number of rounds.
        minutes: the time limit for all rounds together.

    Returns:
        `encoder_s` [rounds], and `cells`, each with `text_tokens`, `compression` (percent), `visual_tokens`,
        `prefill_s` [rounds], and `llm` and `end_to_end` with `measured` (speed-ups, [rounds]) and `bound`.
    """
    model.use_decoder_part(None)
    runs = {ENCODER: partial(_encode, model)}
    for text, share in PROMPTS:
        runs[f"{text} text, {share}%"] = partial(_prefill, model, visual_tokens(model.config, share) + text)
    measured = in_rounds(runs, rounds, minutes)
    encoder_s = measured.pop(ENCODER)
    prefill_s = dict(zip(PROMPTS, measured.values(), strict=True))
    return {"encoder_s": encoder_s, "cells": _cells(model.config, prefill_s, encoder_s)}


def visual_tokens(config: VicoInternVLConfig, compression: int) -> int:
    """Return the number of visual tokens of the 10 tiles after removing `compression` percent of them."""
    return _remaining(TILES * config.num_high_tokens, compression)


def bounds(config: PreTrainedConfig, text_tokens: int, compression: int) -> Bounds:
    """Return the speed-ups by operations, for the language model alone and with the vision encoder before it.

    Args:
        config: a `VicoInternVLConfig`, or a decoder's own configuration. With the latter, the prompt has the paper's 10
            tiles of 256 visual tokens, and there is no end-to-end bound.
        text_tokens: number of text tokens.
        compression: percentage of the visual tokens that is removed.

    Returns:
        None for both if the decoder is not a dense Qwen3, Qwen2 or Llama.
    """
    decoder = config.get_text_config()
    if decoder.model_type not in DENSE:
        return Bounds(None, None)
    visual = TILES * config.num_high_tokens if isinstance(config, VicoInternVLConfig) else VISUAL_TOKENS

    def flops(share: int) -> int:
        tokens = _remaining(visual, share) + text_tokens
        return prefill_flops(decoder, [tokens] * decoder.num_hidden_layers).total

    whole, less = flops(0), flops(compression)
    if not isinstance(config, VicoInternVLConfig):
        return Bounds(whole / less, None)
    encoder = TILES * vision_flops(config)
    return Bounds(whole / less, (encoder + whole) / (encoder + less))


def _remaining(num_tokens: int, compression: int) -> int:
    return round(num_tokens * (100 - compression) / 100)


def _cells(
    config: VicoInternVLConfig, prefill_s: dict[tuple[int, int], list[float]], encoder_s: list[float]
) -> list[dict[str, Any]]:
    encoder = np.array(encoder_s)
    cells = []
    for (text, share), own in prefill_s.items():
        whole, less = np.array(prefill_s[text, 0]), np.array(own)
        llm, end_to_end = bounds(config, text, share)
        cells.append(
            {
                "text_tokens": text,
                "compression": share,
                "visual_tokens": visual_tokens(config, share),
                "prefill_s": own,
                "llm": {"measured": (whole / less).tolist(), "bound": llm},
                "end_to_end": {
                    "measured": ((encoder + whole) / (encoder + less)).tolist(),
                    "bound": end_to_end,
                },
            }
        )
    return cells


@torch.inference_mode()
def _prefill(model: VicoInternVL, num_tokens: int) -> float:
    """Return the seconds until the last token's logits of a random prompt are computed."""
    embedding = model.get_input_embeddings().weight
    prompt = torch.randn(1, num_tokens, embedding.shape[1]).to(embedding)
    start = seconds_on(embedding.device)
    model.language_model(inputs_embeds=prompt, use_cache=True, logits_to_keep=1)
    return seconds_on(embedding.device) - start


@torch.inference_mode()
def _encode(model: VicoInternVL) -> float:
    """Return the vision encoder's seconds on 10 tiles of noise whose pixels are already on the device."""
    size, device = model.config.tile_size, model.decoder_device
    tiles = torch.randint(0, 256, (TILES, size, size, 3), dtype=torch.uint8).to(device)
    start = seconds_on(device)
    model.encode_tiles(normalise(tiles))
    return seconds_on(device) - start
