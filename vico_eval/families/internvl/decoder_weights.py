"""A checkpoint's decoder weights from any layout, tensor by tensor, with the names of transformers' own class.

Nothing is loaded in advance: safetensors give views of files, so only accessed tensors are in memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedConfig

from vico_eval.errors import CheckpointError
from vico_eval.families.internvl.checkpoint import Checkpoint, refuse_wrong_stacks
from vico_eval.families.internvl.internlm2 import FUSED, split_groups
from vico_eval.families.internvl.weight_names import STACKED_EXPERTS, decoder_name, one_by_one
from vico_eval.families.weight_files import named, read_tensors, shapes_of

HEAD = "lm_head.weight"
_COMPUTED = re.compile(r"rotary_emb\.inv_freq$")
"""Tensors in some old checkpoints that transformers computes from the configuration."""


def expected_shapes(text_config: PreTrainedConfig) -> dict[str, list[int]]:
    """Return the shapes of the weights that transformers' class for a decoder reads, by name; experts separately, as
    released."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(text_config, attn_implementation="eager", trust_remote_code=False)
    return {
        name: list(piece.shape)
        for whole, tensor in model.state_dict().items()
        if not (whole == HEAD and text_config.tie_word_embeddings)
        for name, piece in _pieces(whole, tensor, text_config)
    }


def check_weights(checkpoint: Checkpoint) -> dict[str, list[int]]:
    """Check, from the files' headers, that a checkpoint has all decoder weights with the right shapes.

    Returns:
        `expected_shapes` of its decoder.

    Raises:
        CheckpointError: missing, unexpected or mis-shaped weights, named.
    """
    refuse_wrong_stacks(checkpoint)
    text_config = checkpoint.config.text_config
    expected = expected_shapes(text_config)
    found = {
        name: list(piece.shape)
        for file in set(checkpoint.weights.values())
        for stored, shape in shapes_of(file).items()
        if (whole := _kept_name(stored, text_config)) is not None
        for name, piece in _pieces(whole, torch.empty(shape, device="meta"), text_config)
    }
    problems = [
        *(f"missing: {name}" for name in expected.keys() - found.keys()),
        *(f"unexpected: {name}" for name in found.keys() - expected.keys()),
        *(
            f"{name} has shape {found[name]}, expected {expected[name]}"
            for name in expected.keys() & found.keys()
            if found[name] != expected[name]
        ),
    ]
    if problems:
        raise CheckpointError(
            f"the language model's weights in {checkpoint.folder} do not fit its config.json: {named(problems, '; ')}. "
            "Names are those of transformers' own class. Use weights and config of the same checkpoint."
        )
    return expected


def decoder_weights(checkpoint: Checkpoint) -> Iterator[tuple[str, Tensor]]:
    """Yield the decoder's weights with their names, file by file. A pickled file (`.bin`) is loaded completely."""
    text_config = checkpoint.config.text_config
    wholes = {stored: _kept_name(stored, text_config) for stored in checkpoint.weights}
    for file in sorted(set(checkpoint.weights.values())):
        names = {stored: whole for stored in shapes_of(file) if (whole := wholes[stored]) is not None}
        for stored, tensor in read_tensors(file, names).items():
            yield from _pieces(names[stored], tensor, text_config)


def _kept_name(stored: str, text_config: PreTrainedConfig) -> str | None:
    name = decoder_name(stored)
    if name is None or _COMPUTED.search(name) or (name == HEAD and text_config.tie_word_embeddings):
        return None
    return name


def _pieces(name: str, tensor: Tensor, text_config: PreTrainedConfig) -> Iterator[tuple[str, Tensor]]:
    """Split a stored tensor as in a released checkpoint of the decoder: unchanged, into q, k and v, or into experts."""
    if FUSED in name:
        for part, weight in zip("qkv", split_groups(tensor, text_config), strict=True):
            yield name.replace(FUSED, f".self_attn.{part}_proj"), weight
    elif name.endswith(STACKED_EXPERTS):
        yield from one_by_one(name, tensor)
    else:
        yield name, tensor
