"""`vico-eval export-decoder`: the language model alone, for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vico_eval.commands import completion, options


def export_decoder(
    checkpoint: Annotated[
        str,
        typer.Argument(
            help=f"Checkpoint in any layout: {options.A_CHECKPOINT}.", autocompletion=completion.checkpoints
        ),
    ],
    out: Annotated[Path, typer.Argument(help="A new or empty folder.")],
) -> None:
    """Export a checkpoint's language model for other programs.

    The folder is in Hugging Face's format, which vLLM, SGLang and transformers load without our code: Qwen2, Qwen3,
    Qwen3-MoE or Llama, and InternLM2 as Llama, each with its tokenizer. Only the decoder's weights are read, one shard
    at a time, so any size takes a few GB of memory and no GPU. A finished export of the same checkpoint is kept.

    \b
    Examples:
      vico-eval export-decoder vico-tiny decoders/vico-tiny
      vico-eval export-decoder OpenGVLab/InternVL3_5-8B-Flash decoders/8b
    """
    from vico_eval.commands.work.export_decoder import write_decoder

    write_decoder(checkpoint, out)
