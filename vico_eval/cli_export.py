"""`vico-eval export-decoder`: the language model alone, for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export_decoder(
    checkpoint: Annotated[str, typer.Argument(help="A folder, a hub id or a built-in one, in any layout.")],
    out: Annotated[Path, typer.Argument(help="A new or empty folder.")],
) -> None:
    """Write a checkpoint's decoder as a plain folder.

    In Hugging Face's format, which vLLM, SGLang and transformers load without code of ours: Qwen2, Qwen3, Qwen3-MoE or
    Llama with its tokenizer, InternLM2 as Llama. Nothing but its weights is read, a shard at a time, so that any size
    needs a few GB of memory and no GPU. A folder that holds the same export already is left as it is.

    \b
    Examples:
      vico-eval export-decoder vico-tiny decoders/vico-tiny
      vico-eval export-decoder OpenGVLab/InternVL3_5-8B-Flash decoders/8b
    """
    from vico_eval.commands.export_decoder import write_decoder

    write_decoder(checkpoint, out)
