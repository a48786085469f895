"""Finished small models in the layout that `pretrained=` takes: bfloat16 weights, configuration, tokenizer."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from vico_eval.internvl.config import VicoInternVLConfig
from vico_eval.internvl.modeling import VicoInternVL

_VICO_PARTS = ("connector_low.", "router.", "image_router.")


def rounded(model: VicoInternVL) -> VicoInternVL:
    """The model with its weights rounded as they will be saved, computing in float32."""
    return model.to(torch.bfloat16).to(torch.float32)


def save_vico(model: VicoInternVL, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Save a model with all of ViCO's parts."""
    copy.deepcopy(model).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def save_base(model: VicoInternVL, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Save a model without ViCO's parts."""
    values = model.config.to_dict()
    for name in ("has_low_connector", "has_router", "has_image_router"):
        values[name] = False
    plain = VicoInternVL(VicoInternVLConfig(**values))
    weights = {name: value for name, value in model.state_dict().items() if not name.startswith(_VICO_PARTS)}
    plain.load_state_dict(weights)
    plain.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
