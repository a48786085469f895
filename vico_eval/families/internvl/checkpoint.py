"""From a folder, a built-in name or a hub id to InternVL and its tokenizer, without remote code.

The weights' names and shapes are checked before and after loading: what is missing, unexpected or of another shape is
an error that names it.
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
        """What parts of a method may know of it."""
        return facts_of(self.config, self.name)


def find_checkpoint(pretrained: str | Path, *, allow_pickle: bool = False) -> Checkpoint:
    """Look at a checkpoint's files without loading weights.

    Args:
        pretrained: a folder, a built-in name (`vico-tiny`, `vico-tiny-base`) or a hub id, which is downloaded.
        allow_pickle: where there are no safetensors, read `.bin` files, as plain tensors only (`weights_only`).

    Raises:
        CheckpointError: no such folder, no network for a hub id, half a checkpoint, or another architecture.
    """
    pretrained = str(pretrained)
    folder = locate(pretrained, lambda found: _read_config(found, frozenset()), allow_pickle=allow_pickle)
    _read_config(folder, frozenset())  # before a word about weights: a folder of another kind has none of ours
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
    """The checkpoint's tokenizer.

    Raises:
        CheckpointError: no tokenizer files, or a vocabulary without `<IMG_CONTEXT>`.
    """
    if not any((checkpoint.folder / name).is_file() for name in TOKENIZER_FILES):
        raise CheckpointError(
            f"{checkpoint.folder} holds no tokenizer: expected tokenizer.json, or vocab.json and merges.txt, or "
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
        checkpoint: from `find_checkpoint`.
        model_class: of the model.
        **placement: as of `load_placed`.

    Raises:
        CheckpointError: missing, unexpected or mis-shaped weights, named.
        ConfigError: a device that is not there, an unknown dtype or attention kernel, `device` with `device_map`.
    """
    refuse_wrong_stacks(checkpoint)
    return load_placed(model_class, checkpoint, **placement)


def refuse_wrong_stacks(checkpoint: Checkpoint) -> None:
    """Raises CheckpointError for experts, or fused q, k, v of InternLM2, of another number or shape than the config's.

    Loading stacks the former, which lie one by one, and splits the latter: behind it nothing can be named.
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
