"""Saving in the layout that InternVL is released in (`internvl_chat`), which LMDeploy and the authors' code read.

This is the inverse of loading, with the same table of names. InternLM2 is saved as Llama, which the released code also
supports.

Differs: released Flash checkpoints have two attention blocks of the router that no code runs. They are dropped by
        loading; see `_dead_router_weights` for their replacement.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file
from torch import Tensor
from transformers import GenerationConfig

from vico_eval.errors import CheckpointError
from vico_eval.families.internvl.modeling import VicoInternVL
from vico_eval.families.internvl.processor_files import IMAGE_PROCESSOR, released_processor
from vico_eval.families.internvl.released_config import AUTO_MAP, not_in_released, released_config
from vico_eval.families.internvl.weight_names import FUSED_QKV, SPLIT_QKV, STACKED_EXPERTS, one_by_one, released_name
from vico_eval.families.weight_files import INDEX, named
from vico_eval.files import check_unused, new_folder, write_json

PARTS = ("vision_model.", "mlp1.", "mlp2.", "pooling_before_gating.", "gating.", "language_model.")
"""Prefixes of the released layout's names."""

_HEAD = "language_model.lm_head.weight"


def save_released(
    model: VicoInternVL,
    write_tokenizer: Callable[[Path], object],
    folder: Path,
    *,
    auto_map: bool = False,
    max_shard_size: int | str = "5GB",
) -> None:
    """Save weights, configurations and tokenizer, using no more additional memory than one shard.

    What the layout can't represent is lost; see `not_in_released`. The authors' code is not written.

    Args:
        model: a model without offloaded weights.
        write_tokenizer: writes the tokenizer's files to a folder.
        folder: a new or empty folder, which appears when everything is written.
        auto_map: refer to the authors' code in `config.json`, for users who copy its files to the folder.
        max_shard_size: bytes, or as in "5GB".

    Raises:
        CheckpointError: the model has parts that the released layout can't represent.
        OutputError: the folder is in use, or can't be written.
    """
    not_in_released(model.config)
    folder = folder.expanduser().resolve()
    check_unused(folder)
    weights = _released_weights(model)
    with new_folder(folder) as partial:
        _save_weights(weights, partial, max_shard_size)
        write_tokenizer(partial)
        write_json(partial / IMAGE_PROCESSOR, released_processor(model.config.tile_size))
        GenerationConfig.from_model_config(model.config.text_config).save_pretrained(partial)
        # Written last: a folder without it isn't a checkpoint, so the remains of a killed process are never loaded.
        config = released_config(model.config, model.dtype) | ({"auto_map": AUTO_MAP} if auto_map else {})
        (partial / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _released_weights(model: VicoInternVL) -> dict[str, list[Tensor]]:
    """Return, by released name, the tensors to concatenate along the first dimension, which share the model's memory.

    transformers' reverse conversion would create all fused and unstacked tensors at once.
    """
    ours = model.state_dict()
    if model.config.text_config.tie_word_embeddings:
        del ours[_HEAD]
    query, key, value = SPLIT_QKV
    released = {}
    for name, weight in ours.items():
        if query in name:
            released[released_name(name.replace(query, FUSED_QKV))] = [
                ours[name.replace(query, part)] for part in SPLIT_QKV
            ]
        elif name.endswith(STACKED_EXPERTS):
            released |= {expert: [part] for expert, part in one_by_one(name, weight)}
        elif not name.startswith("image_router.") and key not in name and value not in name:
            released[released_name(name)] = [weight]
    if homeless := [name for name in released if not name.startswith(PARTS)]:
        raise CheckpointError(
            f"InternVL's released layout has no place for {named(homeless)}. Export a checkpoint without them."
        )
    return released | _dead_router_weights(released)


def _dead_router_weights(released: dict[str, list[Tensor]]) -> dict[str, list[Tensor]]:
    """Return blocks 3 and 4 of the router's pooling, which the released code and LMDeploy register but never run.

    They are copies of block 2, which runs three times, so code that ran all four blocks would make the same decisions.
    """
    return {
        re.sub(r"\.(attn|norm)2\.", rf".\g<1>{block}.", name): weight
        for block in (3, 4)
        for name, weight in released.items()
        if name.startswith(("pooling_before_gating.attn2.", "pooling_before_gating.norm2."))
    }


def _save_weights(weights: dict[str, list[Tensor]], folder: Path, max_shard_size: int | str) -> None:
    shapes = {name: torch.cat([part.to("meta") for part in parts]) for name, parts in weights.items()}
    split = split_torch_state_dict_into_shards(shapes, max_shard_size=max_shard_size)
    for file, names in split.filename_to_tensors.items():
        # Concatenated even if it is one part, because safetensors rejects shared memory within a file.
        save_file({name: torch.cat(weights[name]) for name in names}, folder / file, metadata={"format": "pt"})
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
