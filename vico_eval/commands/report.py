"""`vico-eval report`: finished runs -> the table on stdout, its files and its figures in a folder."""

from __future__ import annotations

from pathlib import Path

from vico_eval.commands.output import message_console, results_console
from vico_eval.errors import ConfigError
from vico_eval.report import Report, to_terminal


def print_report(written: Report) -> None:
    """Print a written report's table, and say where its files are."""
    results = results_console()
    results.print(to_terminal(written.table, width=results.width))
    messages = message_console()
    messages.print("Written:")
    for path in written.paths:
        messages.print(f"  {path}", soft_wrap=True)
    if written.removed:
        messages.print("Removed, an earlier report's, of which this one has none:")
        for path in written.removed:
            messages.print(f"  {path}", soft_wrap=True)


def titled_run(text: str) -> tuple[str | None, Path]:
    """A run as the command line names it, `FOLDER` or `TITLE=FOLDER`: title and folder.

    What is there is a folder, whatever its name; a title may hold equals signs, the folder behind it none.

    Raises:
        ConfigError: it is the word `published`, which is an option here, and no folder.
    """
    if text == "published" and not Path(text).exists():
        raise ConfigError(
            "published is no run. `vico-eval papers` prints the papers' own tables, and `vico-eval report RUNS "
            "--published` sets their numbers beneath measured ones."
        )
    title, equals, folder = text.rpartition("=")
    if not equals or Path(text).exists():
        return None, Path(text)
    return title or None, Path(folder)
