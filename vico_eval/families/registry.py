"""The registry of families by the `model_type` in a checkpoint's `config.json`. Only the requested family is
imported."""

from __future__ import annotations

import importlib
from pathlib import Path

from vico_eval.errors import CheckpointError
from vico_eval.families.checkpoint import config_values
from vico_eval.families.family import Family

INTERNVL, QWEN_VL = "vico_eval.families.internvl.family:InternVL", "vico_eval.families.qwen_vl.family:QwenVL"

SUPPORTED = {
    "vico_internvl": INTERNVL,
    "internvl_chat": INTERNVL,
    "internvl": INTERNVL,
    "qwen2_5_vl": QWEN_VL,
    "qwen3_vl": QWEN_VL,
    "qwen3_vl_moe": QWEN_VL,
}
"""The class of each kind of checkpoint, "module:Class"."""

GENERATIONS = "InternVL 2 to 3.5, 3.5-Flash, InternVL-X, Qwen2.5-VL and Qwen3-VL"

_QWEN_OMNI = "it also speaks and hears, and its thinker reads audio between the frames of a video. Give a Qwen3-VL"
REFUSED = {
    "qwen2_vl": "Qwen2.5-VL has the same sizes and a better encoder, and Qwen2-VL is untested here. Give a Qwen2.5-VL",
    "qwen2_5_omni": _QWEN_OMNI,
    "qwen3_omni_moe": _QWEN_OMNI,
    "qwen3_5": "its decoder has layers without attention, from which tokens can't be removed. Give a Qwen3-VL",
    "qwen3_5_moe": "its decoder has layers without attention, from which tokens can't be removed. Give a Qwen3-VL",
}
"""Similar kinds of checkpoints that are rejected on purpose, with the reason."""


def family_of(pretrained: str | Path) -> Family:
    """Return the family of a checkpoint.

    Args:
        pretrained: a folder, the name of a built-in checkpoint or a hub id, of which only `config.json` is downloaded.

    Raises:
        CheckpointError: the checkpoint is missing, or no family supports it; the message lists the supported ones.
    """
    name = str(pretrained)
    model_type = config_values(name).get("model_type")
    if model_type in REFUSED:
        raise CheckpointError(
            f"{name!r} is of model_type {model_type!r}, which is not supported: {REFUSED[model_type]} checkpoint."
        )
    if model_type not in SUPPORTED:
        raise CheckpointError(
            f"config.json of {name!r} has model_type {model_type!r}; expected one of {', '.join(SUPPORTED)}. Give the "
            f"folder or the hub id of a checkpoint of {GENERATIONS}."
        )
    module, _, of_family = SUPPORTED[model_type].partition(":")
    family: Family = getattr(importlib.import_module(module), of_family)()
    return family
