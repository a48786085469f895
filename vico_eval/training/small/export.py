"""Saving finished small models in the layout for `pretrained=`: bfloat16 weights, configuration and tokenizer."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from vico_eval.families.internvl.config import VicoInternVLConfig
from vico_eval.families.internvl.modeling import VicoInternVL
from vico_eval.training.saving.files import whole_folder

_OF_VICO = {"low_connector": "connector_low.", "router": "router.", "image_router": "image_router."}
"""ViCO's parts, with the prefixes of their weights' names."""


def rounded(model: VicoInternVL) -> VicoInternVL:
    """Round the model's weights to the precision of the saved files, in place; it still computes in float32."""
    return _cast(_cast(model, torch.bfloat16), torch.float32)


def save_vico(model: VicoInternVL, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Save a model with all of ViCO's parts."""
    with whole_folder(folder) as unfinished:
        _cast(copy.deepcopy(model), torch.bfloat16).save_pretrained(unfinished)
        tokenizer.save_pretrained(unfinished)


def save_base(model: VicoInternVL, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Save a model without ViCO's parts."""
    values = model.config.to_dict()
    values["parts"] = {name: settings for name, settings in model.config.parts.items() if name not in _OF_VICO}
    plain = VicoInternVL(VicoInternVLConfig(**values))
    weights = {
        name: value for name, value in model.state_dict().items() if not name.startswith(tuple(_OF_VICO.values()))
    }
    plain.load_state_dict(weights)
    with whole_folder(folder) as unfinished:
        _cast(plain, torch.bfloat16).save_pretrained(unfinished)
        tokenizer.save_pretrained(unfinished)


def _cast(model: VicoInternVL, dtype: torch.dtype) -> VicoInternVL:
    """Convert the parameters only; buffers such as rotary frequencies are never saved and stay in float32."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return model
