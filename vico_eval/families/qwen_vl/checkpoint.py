"""A Qwen-VL checkpoint on disk: configuration, processors, chat template."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from transformers import AutoConfig, AutoProcessor

from vico_eval.errors import CheckpointError
from vico_eval.families.checkpoint import (
    CONFIG,
    UNLOADABLE,
    CheckpointFiles,
    incomplete,
    locate,
    read_config,
    refuse_quantised,
)
from vico_eval.families.qwen_vl.facts import facts_of
from vico_eval.families.weight_files import find_weights
from vico_eval.methods.interface import ModelFacts

_BROKEN: tuple[type[Exception], ...] = (*UNLOADABLE, ImportError)
"""Errors that transformers raises for a processor that is missing, broken, or has missing dependencies."""


@dataclass(frozen=True, kw_only=True)
class QwenCheckpoint(CheckpointFiles):
    """Qwen-VL on disk."""

    ANSWERING_FILES: ClassVar[tuple[str, ...]] = (
        *CheckpointFiles.ANSWERING_FILES,
        *("processor_config.json", "video_preprocessor_config.json"),
        *("chat_template.jinja", "chat_template.json"),
    )

    @property
    def facts(self) -> ModelFacts:
        """The checkpoint's facts for parts of methods."""
        return facts_of(self.config, self.name, self.processor.image_processor)

    @cached_property
    def processor(self) -> Any:
        """transformers' processor: tokenizer, chat template, image processor and video processor.

        Raises:
            CheckpointError: its files are missing or broken, or it has no chat template.
        """
        try:
            processor: Any = AutoProcessor.from_pretrained(self.folder, trust_remote_code=False, local_files_only=True)
        except _BROKEN as error:
            raise CheckpointError(
                f"the processor in {self.folder} can't be loaded: {error}. Copy preprocessor_config.json and the "
                "tokenizer files of the same release there; images and videos need torchvision."
            ) from error
        if getattr(processor, "image_processor", None) is None:
            raise CheckpointError(
                f"{self.folder} has no image processor: expected preprocessor_config.json or processor_config.json. "
                "Copy it from the same release."
            )
        if processor.chat_template is None:
            raise CheckpointError(
                f"{self.folder} has no chat template: expected chat_template.jinja, chat_template.json or one in "
                "tokenizer_config.json. Copy it from the same release."
            )
        return processor


def find_checkpoint(pretrained: str, *, allow_pickle: bool = False) -> QwenCheckpoint:
    """Find and check a checkpoint's files without loading weights.

    Args:
        pretrained: a folder or a hub id, which is downloaded.
        allow_pickle: without safetensors, read `.bin` files, as plain tensors only (`weights_only`).

    Raises:
        CheckpointError: the folder is missing, a hub id can't be downloaded, or the checkpoint is incomplete or
            quantised.
    """
    folder = locate(pretrained, read_config, allow_pickle=allow_pickle)
    refuse_quantised(read_config(folder))
    try:
        config: Any = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except UNLOADABLE as error:
        raise incomplete(folder / CONFIG, repr(error)) from error
    weights = find_weights(folder, allow_pickle=allow_pickle)
    return QwenCheckpoint(name=pretrained, folder=folder, config=config, weights=weights)
