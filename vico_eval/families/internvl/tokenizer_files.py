"""Copying a checkpoint's tokenizer files to another folder, byte for byte.

A tokenizer that transformers 5 saved can't be read by transformers 4 (`'list' object has no attribute 'keys'`), and
lacks files that a slow tokenizer needs (`vocab.json`, `merges.txt`).
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from vico_eval.errors import BAD_INPUT, CheckpointError
from vico_eval.files import write_json

TOKENIZER_CONFIG = "tokenizer_config.json"

TOKENIZER_FILES = (
    *("tokenizer.json", TOKENIZER_CONFIG, "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "tokenizer.model", "chat_template.jinja", "chat_template.json"),
)
"""All files of a tokenizer without its own code."""

_NAMES_BEFORE_5 = {"TokenizersBackend": "PreTrainedTokenizerFast"}
"""Class names that are new in transformers 5, and their names in version 4."""


def copy_tokenizer(source: Path, out: Path) -> None:
    """Copy the tokenizer files of a folder to another, byte for byte."""
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, out / name)


def export_tokenizer(source: Path, out: Path) -> None:
    """Copy tokenizer files (see `copy_tokenizer`), and convert a `tokenizer_config.json` of transformers 5 for version
    4.

    Raises:
        CheckpointError: `tokenizer_config.json` can't be read.
    """
    copy_tokenizer(source, out)
    settings = _settings(source)
    if is_of_transformers_5(source):
        write_json(out / TOKENIZER_CONFIG, _before_5(settings))


def is_of_transformers_5(folder: Path) -> bool:
    """Return whether transformers 4 can't read the `tokenizer_config.json` of a folder.

    Raises:
        CheckpointError: it can't be read.
    """
    settings = _settings(folder)
    return _before_5(settings) != settings


def _settings(folder: Path) -> dict[str, Any]:
    file = folder / TOKENIZER_CONFIG
    if not file.is_file():
        return {}
    try:
        settings: dict[str, Any] = dict(json.loads(file.read_text(encoding="utf-8")))
    except BAD_INPUT as error:
        raise CheckpointError(f"{file} can't be read as a JSON object: {error}. Download it again.") from error
    return settings


def _before_5(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings for transformers 4, in which `extra_special_tokens` are tokens by name, never a list."""
    values = dict(settings)
    if isinstance(values.get("extra_special_tokens"), list):
        values["additional_special_tokens"] = values.pop("extra_special_tokens")
    if (name := values.get("tokenizer_class")) in _NAMES_BEFORE_5:
        values["tokenizer_class"] = _NAMES_BEFORE_5[name]
        values.pop("backend", None)
    return values
