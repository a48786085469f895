"""Loading InternVL and its tokenizer from a folder, a built-in name or a hub id, without remote code.

The weights' names and shapes are checked before and after loading. Errors name missing and unexpected weights, and
those of another shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from vico_eval.errors import CheckpointError
from vico_eval.families.checkpoint import CONFIG, UNLOADABLE, CheckpointFiles, incomplete, locate, read_config
from vico_eval.families.internvl.config import VicoInternVLConfig, from_checkpoint_config
from vico_eval.families.internvl.facts import facts_of
from vico_eval.families.internvl.internlm2 import FUSED, fused_problems
from vico_eval.families.internvl.modeling import VicoInternVL
from vico_eval.families.internvl.processor_files import apply_processor_files
from vico_eval.families.internvl.prompts import IMAGE_TOKEN
from vico_eval.families.internvl.tokenizers import read_tokenizer
from vico_eval.families.internvl.weight_names import expert_problems
from vico_eval.families.weight_files import find_weights, named, shapes_of
from vico_eval.families.weights import load_placed
from vico_eval.methods.interface import ModelFacts

TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "tokenizer.model")


@dataclass(frozen=True, kw_only=True)
class Checkpoint(CheckpointFiles):
    """InternVL on disk."""

    config: VicoInternVLConfig

    @property
    def facts(self) -> ModelFacts:
        """The checkpoint's facts for parts of methods."""
        return facts_of(self.config, self.name)


def find_checkpoint(pretrained: str | Path, *, allow_pickle: bool = False) -> Checkpoint:
    """Find and check a checkpoint's files without loading weights.

    Args:
        pretrained: a folder, a built-in name (`vico-tiny`, `vico-tiny-base`) or a hub id, which is downloaded.
        allow_pickle: without safetensors, read `.bin` files, as plain tensors only (`weights_only`).

    Raises:
        CheckpointError: the folder is missing, a hub id can't be downloaded, or the checkpoint is incomplete or of
            another architecture.
    """
    pretrained = str(pretrained)
    folder = locate(pretrained, lambda found: _read_config(found, frozenset()), allow_pickle=allow_pickle)
    _read_config(folder, frozenset())  # checked before the weights, which another kind of checkpoint lacks
    weights = find_weights(folder, allow_pickle=allow_pickle)
    return Checkpoint(name=pretrained, folder=folder, config=_read_config(folder, frozenset(weights)), weights=weights)


def _read_config(folder: Path, tensor_names: frozenset[str]) -> VicoInternVLConfig:
    values = read_config(folder)
    try:
        config = from_checkpoint_config(values, tensor_names)
        apply_processor_files(folder, config, is_hf=values["model_type"] == "internvl")
        return config
    except UNLOADABLE as error:
        raise incomplete(folder / CONFIG, repr(error)) from error


def load_tokenizer(checkpoint: Checkpoint) -> PreTrainedTokenizerBase:
    """Load the checkpoint's tokenizer.

    Raises:
        CheckpointError: tokenizer files are missing, or the vocabulary lacks `<IMG_CONTEXT>`.
    """
    if not any((checkpoint.folder / name).is_file() for name in TOKENIZER_FILES):
        raise CheckpointError(
            f"{checkpoint.folder} has no tokenizer: expected tokenizer.json, or vocab.json and merges.txt, or "
            "tokenizer.model. Copy them and tokenizer_config.json from the same InternVL release."
        )
    tokenizer = read_tokenizer(checkpoint.folder, checkpoint.config)
    image_token_id = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    if image_token_id is None or image_token_id == tokenizer.unk_token_id:
        raise CheckpointError(
            f"the tokenizer in {checkpoint.folder} has no {IMAGE_TOKEN} token. Copy the tokenizer files (with "
            "added_tokens.json) from the same InternVL release."
        )
    return tokenizer


def load_model(
    checkpoint: Checkpoint, *, model_class: type[VicoInternVL] = VicoInternVL, **placement: Any
) -> VicoInternVL:
    """Load the weights, in evaluation mode.

    Args:
        checkpoint: the result of `find_checkpoint`.
        model_class: the model's class.
        **placement: see `load_placed`.

    Raises:
        CheckpointError: weights are missing, unexpected or of another shape; the message names them.
        ConfigError: the device doesn't exist, the dtype or attention kernel is unknown, or `device` is used with
            `device_map`.
    """
    refuse_wrong_stacks(checkpoint)
    return load_placed(model_class, checkpoint, **placement)


def refuse_wrong_stacks(checkpoint: Checkpoint) -> None:
    """Raise CheckpointError if the number or shape of experts, or of InternLM2's fused q, k, v, doesn't match the
    configuration.

    Loading stacks the experts and splits q, k, v, so later errors couldn't name the original weights.
    """
    files = {file for name, file in checkpoint.weights.items() if ".experts." in name or FUSED in name}
    shapes = {name: shape for file in files for name, shape in shapes_of(file).items()}
    text_config = checkpoint.config.text_config
    problems = expert_problems(shapes, text_config) + fused_problems(shapes, text_config)
    if problems:
        raise CheckpointError(
            f"the weights in {checkpoint.folder} do not fit its config.json: {named(problems, '; ')}. "
            "Use weights and config of the same checkpoint."
        )
