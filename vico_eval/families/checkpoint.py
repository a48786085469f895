"""A checkpoint's files, for all families: their location, their content, and a digest of everything that affects
answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    StrictDataclassError,
)
from transformers import PreTrainedTokenizerBase
from transformers.utils.peft_utils import ADAPTER_CONFIG_NAME

from vico_eval.errors import BAD_INPUT, CheckpointError
from vico_eval.families.weight_digest import weights_digest
from vico_eval.families.weight_files import INDEX, SINGLE
from vico_eval.paths import is_folder, models_dir, user_path

HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
CONFIG = "config.json"

UNLOADABLE: tuple[type[Exception], ...] = (*BAD_INPUT, RuntimeError, StrictDataclassError)
"""Errors that transformers raises for a missing or broken configuration or tokenizer."""

QUANTISED = ("quantization_config", "compression_config")
"""Keys for quantisation in a `config.json` or its sections."""


@dataclass(frozen=True, kw_only=True)
class CheckpointFiles:
    """A checkpoint on disk whose files are complete."""

    ANSWERING_FILES: ClassVar[tuple[str, ...]] = (
        *(CONFIG, "generation_config.json", "preprocessor_config.json"),
        *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
        *("vocab.json", "merges.txt", "tokenizer.model"),
    )
    """Files besides the weights that may affect answers."""

    name: str
    """The name given by the user."""

    folder: Path

    config: Any
    """The model's transformers configuration."""

    weights: dict[str, Path]
    """File of every tensor, by the tensor's name in the checkpoint."""

    @property
    def dtype(self) -> torch.dtype | None:
        """The dtype of its weights, if the configuration states it."""
        stated: Any = self.config.dtype
        dtype: torch.dtype | None = getattr(torch, stated) if isinstance(stated, str) else stated
        return dtype

    def identity(self) -> dict[str, str]:
        """Return name, folder and a digest over all weights, the tokenizer and the configuration.

        Weights are included tensor by tensor (`weights_digest`). Digests by older versions are plain hex digits over
        `config.json` and both ends of the weight files, and never equal these.
        """
        digest = sha256()
        for name in self.ANSWERING_FILES:
            file = self.folder / name
            if file.is_file():
                digest.update(f"{name} {sha256(file.read_bytes()).hexdigest()}\n".encode())
        digest.update(weights_digest(set(self.weights.values())).encode())
        return {"name": self.name, "path": str(self.folder), "sha256": f"tensors:{digest.hexdigest()}"}


def locate(pretrained: str, look: Callable[[Path], object], *, allow_pickle: bool) -> Path:
    """Return the folder of a checkpoint, which is downloaded if it is a hub id.

    Args:
        pretrained: a folder, the name of a built-in checkpoint or a hub id.
        look: called with a folder that contains a hub id's `config.json`, before gigabytes are downloaded; raises an
            error if the configuration is unsuitable.
        allow_pickle: download `.bin` files if there are no safetensors.

    Raises:
        CheckpointError: the folder is missing, or a hub id can't be downloaded.
    """
    folder = _here(pretrained)
    if folder is not None:
        return folder
    look(_with_config(pretrained))
    folder = _download(pretrained, HUB_FILES)
    if allow_pickle and not list(folder.glob("*.safetensors")):
        _download(pretrained, ["*.bin"])
    return folder


def config_values(pretrained: str) -> dict[str, Any]:
    """Return the `config.json` of a checkpoint, downloading nothing else; see `locate` and `read_config`."""
    return read_config(_here(pretrained) or _with_config(pretrained))


def read_config(folder: Path) -> dict[str, Any]:
    """Read a folder's `config.json`.

    Raises:
        CheckpointError: it is missing or can't be read, or the folder contains an adapter.
    """
    if (folder / ADAPTER_CONFIG_NAME).exists():
        # If PEFT is installed, transformers silently applies it to the weights, which no digest would show.
        raise CheckpointError(
            f"{folder} contains {ADAPTER_CONFIG_NAME}, an adapter (LoRA); expected complete weights without one. "
            "Merge it into them (PEFT's merge_and_unload, then save_pretrained) and give that folder, or move "
            "adapter_config.json and the adapter's weights elsewhere."
        )
    file = folder / CONFIG
    if not file.is_file():
        raise CheckpointError(
            f"{folder} is not a checkpoint: it has no config.json. Expected config.json, tokenizer files and "
            f"{SINGLE} (or {INDEX} and its shards)."
        )
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except BAD_INPUT as error:
        raise CheckpointError(f"{file} can't be read as JSON: {error}. Download it again.") from error
    if not isinstance(values, dict):
        raise incomplete(file, f"it contains a {type(values).__name__}")
    return values


def incomplete(file: Path, why: object) -> CheckpointError:
    """Return the error for an unusable configuration."""
    return CheckpointError(f"{file} is not a complete configuration: {why}. Download it again.")


def refuse_quantised(values: Mapping[str, Any]) -> None:
    """Raise CheckpointError for quantised weights, which have other names, shapes and meanings."""
    parts = {"": values} | {
        f"{name}.": values[name]
        for name in ("llm_config", "text_config", "vision_config")
        if isinstance(values.get(name), Mapping)
    }
    for place, part in parts.items():
        for key in QUANTISED:
            if not (found := part.get(key)):
                continue
            method = found.get("quant_method") if isinstance(found, Mapping) else found
            if method is None and ("load_in_4bit" in found or "load_in_8bit" in found):
                method = "bitsandbytes"
            raise CheckpointError(
                f"the checkpoint's weights are quantised ({method or 'unnamed method'}: {place}{key} in config.json); "
                "expected float32, bfloat16 or float16. Load the checkpoint that it was made from."
            )


def check_tokenizer_fits(tokenizer: PreTrainedTokenizerBase, checkpoint: CheckpointFiles) -> None:
    """Raise CheckpointError if the tokenizer has ids without a row in the checkpoint's embedding."""
    rows = checkpoint.config.text_config.vocab_size
    num_ids = max(tokenizer.get_vocab().values()) + 1
    if num_ids > rows:
        raise CheckpointError(
            f"the tokenizer in {checkpoint.folder} has {num_ids} ids, but the model's embedding has {rows} rows. "
            "Tokens beyond them have no embedding. Copy the tokenizer files from the same release as config.json."
        )


def _here(pretrained: str) -> Path | None:
    """Return the folder if it is on this machine; None for a hub id.

    Raises:
        CheckpointError: it is neither a folder nor a hub id.
    """
    path = user_path(pretrained)
    if pretrained.strip() and is_folder(path):
        return path.resolve()
    builtin = models_dir() / pretrained
    if is_folder(builtin) and (builtin / CONFIG).is_file():
        return builtin
    if path.is_absolute() or pretrained.startswith((".", "~")) or pretrained.count("/") != 1:
        known = sorted(entry.parent.name for entry in models_dir().glob("*/config.json"))
        raise CheckpointError(
            f"no checkpoint {pretrained!r}: it is not a folder, a hub id (owner/name) or a built-in checkpoint "
            f"({', '.join(known) or 'none is installed'})."
        )
    return None


@cache
def _with_config(pretrained: str) -> Path:
    """Return a folder with a hub id's `config.json`. Cached, because several callers need it for each row."""
    return _download(pretrained, [CONFIG, ADAPTER_CONFIG_NAME])


def _download(pretrained: str, patterns: list[str]) -> Path:
    try:
        return Path(snapshot_download(pretrained, allow_patterns=patterns))
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise CheckpointError(
            f"{pretrained!r} is not in the local hub cache and can't be downloaded: no network, or HF_HUB_OFFLINE is "
            "set. Connect, or download it elsewhere and give its folder."
        ) from error
    except (HfHubHTTPError, HFValidationError) as error:
        raise CheckpointError(
            f"{pretrained!r} can't be downloaded from the hub: {error}. Check the name, and log in if it is private."
        ) from error
