"""Loading the tokenizer in a checkpoint's folder, without remote code."""

from __future__ import annotations

from pathlib import Path

from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase

from vico_eval.errors import CheckpointError
from vico_eval.families.checkpoint import UNLOADABLE
from vico_eval.families.internvl.internlm2_tokenizer import InternLM2Tokenizer, is_internlm2_tokenizer


def read_tokenizer(folder: Path, config: PreTrainedConfig | None) -> PreTrainedTokenizerBase:
    """Load the tokenizer in a folder.

    Args:
        folder: the folder.
        config: the checkpoint's configuration; None if unknown.

    Raises:
        CheckpointError: it can't be loaded.
    """
    try:
        tokenizer: PreTrainedTokenizerBase
        if is_internlm2_tokenizer(folder):
            tokenizer = InternLM2Tokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        else:
            tokenizer = AutoTokenizer.from_pretrained(
                folder, config=config, trust_remote_code=False, local_files_only=True
            )
    except UNLOADABLE as error:
        raise CheckpointError(
            f"the tokenizer in {folder} can't be loaded: {error}. Copy the tokenizer files of the same release there; "
            "a tokenizer that needs code of its own is not run."
        ) from error
    return tokenizer
