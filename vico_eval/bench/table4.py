"""ViCO's Table 4 on one machine: how much earlier the first token is there with fewer visual tokens.

One request at a time, random embeddings: the prompt of 10 tiles with 0, 25, 50 or 75% of their visual tokens removed,
and 64 or 512 tokens of text. Language model alone, and with the vision encoder on the 10 tiles before it.

Differs: the paper loads a serving engine with 32 requests at once. Router and connectors are left out, as they are in
the bounds of a decoder behind its vision encoder; they are below 1% of the operations at 8B.
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
"""`model_type` of the decoders whose operations there is a formula for."""


class Bounds(NamedTuple):
    """Speed-ups by operations; None where there is no formula."""

    llm_only: float | None
    end_to_end: float | None


def measure_table4(model: VicoInternVL, *, rounds: int, minutes: float) -> dict[str, Any]:
    """Seconds and speed-ups of every cell, [rounds], with bounds.

    Args:
        model: on its device; a part in its decoder is taken out.
        rounds: the most there are.
        minutes: for all rounds together.

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
    """Of the 10 tiles, with so many percent of them removed."""
    return _remaining(TILES * config.num_high_tokens, compression)


def bounds(config: PreTrainedConfig, text_tokens: int, compression: int) -> Bounds:
    """Speed-ups by operations: of the language model alone, and behind the vision encoder.

    Args:
        config: a `VicoInternVLConfig`; or a decoder's own, which has the paper's 10 tiles of 256 visual tokens before
            the text, and no bound end-to-end.
        text_tokens: behind the tiles.
        compression: percent of the visual tokens that are removed.

    Returns:
        None for both where the decoder is no dense Qwen3, Qwen2 or Llama.
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
    """Seconds until the last token's logits of a random prompt are there."""
    embedding = model.get_input_embeddings().weight
    prompt = torch.randn(1, num_tokens, embedding.shape[1]).to(embedding)
    start = seconds_on(embedding.device)
    model.language_model(inputs_embeds=prompt, use_cache=True, logits_to_keep=1)
    return seconds_on(embedding.device) - start


@torch.inference_mode()
def _encode(model: VicoInternVL) -> float:
    """Seconds of the vision encoder on 10 tiles of noise, their bytes on the device already."""
    size, device = model.config.tile_size, model.decoder_device
    tiles = torch.randint(0, 256, (TILES, size, size, 3), dtype=torch.uint8).to(device)
    start = seconds_on(device)
    model.encode_tiles(normalise(tiles))
    return seconds_on(device) - start
