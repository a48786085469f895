"""InternLM2's tokenizer (InternVL2 and InternVL-X): a sentencepiece model with added tokens, without remote code.

Source: the slow tokenizer released with InternLM2, which InternVL's own code uses (`use_fast=False`).
"""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path
from typing import Any

from transformers import SentencePieceBackend

CLASS_NAMES = ("InternLM2Tokenizer", "InternLM2TokenizerFast")


class InternLM2Tokenizer(SentencePieceBackend):
    """Text between added tokens is tokenized by sentencepiece; a prompt starts with BOS.

    Args:
        add_bos_token: start a tokenized text with BOS, as in every release.
        **arguments: arguments of transformers' class: `vocab_file`, special tokens, ...
    """

    def __init__(self, add_bos_token: bool = True, **arguments: Any) -> None:
        defaults = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}
        super().__init__(  # type: ignore[no-untyped-call]
            **{
                **defaults,
                **arguments,
                "sp_model_kwargs": arguments.get("sp_model_kwargs") or {},
                "legacy": True,  # otherwise transformers changes the beginning of a piece of text
                "special_tokens_pattern": "bos" if add_bos_token else "none",
                "add_bos_token": add_bos_token,
            }
        )

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Return the text of tokens: sentencepiece joins bytes to characters and converts its marks to spaces."""
        runs = groupby(tokens, key=self._added_tokens_encoder.__contains__)
        return "".join("".join(run) if is_added else self.sp_model.decode(list(run)) for is_added, run in runs)


def is_internlm2_tokenizer(folder: Path) -> bool:
    """Return whether a checkpoint's tokenizer is this one."""
    file = folder / "tokenizer_config.json"
    if not file.is_file() or not (folder / "tokenizer.model").is_file():
        return False
    try:
        return json.loads(file.read_text(encoding="utf-8")).get("tokenizer_class") in CLASS_NAMES
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError):
        return False
