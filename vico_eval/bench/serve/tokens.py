"""Making texts with an exact number of tokens, using the served checkpoint's own tokenizer."""

from __future__ import annotations

import json
import random
import string
from pathlib import Path
from typing import Any

from vico_eval.errors import BAD_INPUT, CheckpointError, ConfigError
from vico_eval.paths import is_folder, models_dir, user_path

TOKENIZER_FILES = ["*.json", "*.txt", "*.model", "*.jinja"]
WORD_STARTS = ("Ġ", "▁")
"""The marks of byte-level and SentencePiece vocabularies for the space before a word."""

MIN_WORDS = 1000
"""The minimum number of words in a vocabulary; with fewer, texts consist of letters."""

MAX_TRIES = 50


def find_folder(name: str) -> Path:
    """Find the folder of a checkpoint's tokenizer and configuration, from a folder, built-in name or hub id.

    From the hub it downloads no weights.

    Raises:
        CheckpointError: the name is none of these, or the download failed.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    path = user_path(name)
    for folder in (path, models_dir() / name):
        if name.strip() and is_folder(folder):
            return folder
    try:
        return Path(snapshot_download(name, allow_patterns=TOKENIZER_FILES))
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError) as error:
        raise CheckpointError(
            f"no tokenizer {name!r}: it is neither a folder nor a built-in checkpoint, and it can't be downloaded from "
            f"the hub ({type(error).__name__}). Pass the folder or hub id of the served checkpoint."
        ) from error


def read_config(folder: Path) -> Any | None:
    """Read a checkpoint's configuration; returns None if config.json is missing or its architecture is unknown."""
    from transformers import AutoConfig

    from vico_eval.families.internvl.config import from_checkpoint_config

    try:
        values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return from_checkpoint_config(values, frozenset())
    except CheckpointError:
        pass
    except BAD_INPUT:
        return None
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except BAD_INPUT:
        return None


class TextMaker:
    """Makes texts of random words.

    Args:
        tokenizer: a transformers tokenizer; tokens that it adds itself (BOS) are counted.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        words = [token[1:] for token in tokenizer.get_vocab() if token.startswith(WORD_STARTS)]
        words = sorted({word for word in words if len(word) > 1 and word.isascii() and word.isalpha()})
        self._pieces = [f" {word}" for word in words] if len(words) >= MIN_WORDS else list(string.ascii_letters)

    def text(self, num_tokens: int, seed: str) -> str:
        """Make a text of exactly `num_tokens` tokens; texts of different seeds differ from the first words on.

        Raises:
            ConfigError: no such text was found.
        """
        draw = random.Random(seed)
        pieces = draw.choices(self._pieces, k=num_tokens)
        for _ in range(MAX_TRIES):
            text = "".join(pieces).lstrip()
            missing = num_tokens - self.count(text)
            if missing == 0:
                return text
            pieces = pieces + draw.choices(self._pieces, k=missing) if missing > 0 else pieces[:missing]
        raise ConfigError(
            f"found no text of exactly {num_tokens} tokens with this tokenizer in {MAX_TRIES} tries ({missing} missing "
            "in the last one). Pass the served checkpoint as --tokenizer."
        )

    def count(self, text: str) -> int:
        """Return the number of tokens of a text, including those that the tokenizer adds."""
        return len(self._tokenizer(text).input_ids)
