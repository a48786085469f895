"""`vico-eval export-decoder`: the language model of a checkpoint for other programs."""

from __future__ import annotations

from pathlib import Path

from vico_eval.commands.output import check_writable, message_console
from vico_eval.families.internvl.checkpoint import find_checkpoint
from vico_eval.families.internvl.decoder_export import export_decoder, not_in_export


def write_decoder(checkpoint: str, out: Path) -> None:
    """Export it, and say what is written in another way, or that it was there.

    Raises:
        CheckpointError: the checkpoint is missing or broken, or its decoder is no plain one.
        OutputError: `out` holds something else or can't be written.
    """
    found = find_checkpoint(checkpoint)
    check_writable(out.absolute().parent)
    is_new = export_decoder(found, out)
    console = message_console()
    for sentence in not_in_export(found):
        console.print(f"Note: {sentence}", markup=False, highlight=False, soft_wrap=True)
    text = f"Written: {out}/" if is_new else f"Nothing to do: {out}/ is a finished export of this checkpoint."
    console.print(text, markup=False, highlight=False, soft_wrap=True)
