"""Results go to stdout and can be piped; progress, warnings and closing lines go to stderr."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rich.box
from rich.table import Table

from vico_eval.errors import OutputError
from vico_eval.terminal import SafeConsole, Words

PIPED_WIDTH = 200


def results_console() -> SafeConsole:
    """For what a command is asked for."""
    console = SafeConsole()
    # A file or a pipe has no width; rich would fold a table at 80 columns.
    return console if console.is_terminal else SafeConsole(width=PIPED_WIDTH)


def message_console() -> SafeConsole:
    """For everything else."""
    return SafeConsole(stderr=True)


def print_lines(text: str) -> None:
    """Print lines as they are, of any length: what a command is asked for and another one may read."""
    results_console().print(text, soft_wrap=True)


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: on a terminal wrapped to its width, elsewhere one line a row, of any length, for grep and awk."""
    console = results_console()
    if not console.is_terminal:
        widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
        for row in (heads, *rows):
            line = "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
            console.print(line.rstrip(), soft_wrap=True)
        return
    table = Table(box=rich.box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for place, head in enumerate(heads):
        table.add_column(head, no_wrap=place == 0, style="cyan" if place == 0 else "")
    for row in rows:
        table.add_row(*map(Words, row))
    console.print(table)


def print_json(value: Any) -> None:
    """Print a result for a script; what is not a number, or infinite, has no place in JSON and must be None."""
    print_lines(json.dumps(value, indent=2, allow_nan=False))


def check_writable(path: Path) -> None:
    """Create a folder where it is missing, and see that files can be written into it.

    Raises:
        OutputError: it can't be created or nothing can be written into it; found before hours of work, not after.
    """
    probe = path / ".vico-eval-write-test"
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink(missing_ok=True)  # another command may look at the same moment
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise OutputError(
            f"Can't write into {path} ({reason}). Give another folder, or make this one writable."
        ) from error
