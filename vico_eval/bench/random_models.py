"""Models with real shapes and random weights, because time does not depend on the tokens' contents."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedTokenizerBase, Qwen3Config
from transformers.models.internvl import InternVLVisionConfig

from vico_eval.bench.records import SIZES
from vico_eval.families.internvl.config import VicoInternVLConfig
from vico_eval.families.internvl.modeling import VicoInternVL
from vico_eval.families.internvl.prompts import IMAGE_TOKEN
from vico_eval.tiny.tokenizer import build_tokenizer

MAX_POSITIONS = 1 << 17

ROUTED_SHARE = 0.5
"""The router's scores are random, so its rule is set to compress the tiles with scores above the median."""

_INTERNVIT_300M: dict[str, Any] = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "attention_bias": True,
}
VISION_SIZES: dict[str, dict[str, Any]] = {
    "small": {
        "hidden_size": 128,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "intermediate_size": 512,
        "attention_bias": True,
    },
    "0.6b": _INTERNVIT_300M,
    "8b": _INTERNVIT_300M,
}
"""The vision encoder for each decoder size, as in InternVL3.5-1B and -8B; tiles are 448 px."""


def decoder_config(size: str, **settings: Any) -> Qwen3Config:
    """Return a decoder's configuration by its name in `SIZES`, with other settings; `8b` has an untied head."""
    shape: dict[str, Any] = {"tie_word_embeddings": size != "8b", **SIZES[size], **settings}
    return Qwen3Config(**shape, max_position_embeddings=MAX_POSITIONS)


def flash_config(size: str, attention: str = "sdpa") -> VicoInternVLConfig:
    """Return InternVL3.5-Flash's configuration with a decoder of the given size, a low connector and both routers."""
    tokenizer = build_tokenizer()
    vision = InternVLVisionConfig(**VISION_SIZES[size], image_size=(448, 448), patch_size=(14, 14))
    return VicoInternVLConfig(
        vision_config=vision,
        text_config=decoder_config(size),
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),  # type: ignore[arg-type]
        system_message="",
        parts={
            "low_connector": {},
            "router": {"relative_threshold": ROUTED_SHARE, "absolute_threshold": 0.0},
            "image_router": {},
        },
        attn_implementation=attention,
    )


def random_flash_model(
    size: str, *, device: str, dtype: str, attention: str = "sdpa"
) -> tuple[VicoInternVL, PreTrainedTokenizerBase]:
    """Return a model with seeded random weights, created on its device, and the built-in byte tokenizer."""
    torch.manual_seed(0)
    with torch.device(device):
        model: VicoInternVL = VicoInternVL._from_config(  # type: ignore[no-untyped-call]
            flash_config(size, attention), dtype=getattr(torch, dtype)
        )
    return model.eval(), build_tokenizer()  # type: ignore[no-untyped-call]
