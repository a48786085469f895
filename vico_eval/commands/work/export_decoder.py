"""`vico-eval export-decoder`: export of a checkpoint's language model for other programs."""

from __future__ import annotations

from pathlib import Path

from vico_eval.commands.output import check_writable, message_console
from vico_eval.families.internvl.checkpoint import find_checkpoint
from vico_eval.families.internvl.decoder_export import export_decoder, not_in_export


def write_decoder(checkpoint: str, out: Path) -> None:
    """Export the decoder, and report what was converted, or that the export already exists.

    Raises:
        CheckpointError: the checkpoint is missing or broken, or its decoder can't stand alone.
        OutputError: `out` has other content or can't be written.
    """
    found = find_checkpoint(checkpoint)
    check_writable(out.absolute().parent)
    is_new = export_decoder(found, out)
    console = message_console()
    for sentence in not_in_export(found):
        console.print(f"Note: {sentence}", markup=False, highlight=False, soft_wrap=True)
    text = f"Written: {out}/" if is_new else f"Nothing to do: {out}/ is a finished export of this checkpoint."
    console.print(text, markup=False, highlight=False, soft_wrap=True)
