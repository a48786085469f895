"""Results go to stdout and can be piped; progress, warnings and closing lines go to stderr."""

from pathlib import Path

from rich.console import Console

from vico_eval.errors import OutputError

PIPED_WIDTH = 200


def results_console() -> Console:
    """For what a command is asked for."""
    console = Console()
    # A file or a pipe has no width; rich would fold a table at 80 columns.
    return console if console.is_terminal else Console(width=PIPED_WIDTH)


def message_console() -> Console:
    """For everything else."""
    return Console(stderr=True)


def check_writable(path: Path) -> None:
    """Create a folder where it is missing, and see that files can be written into it.

    Raises:
        OutputError: it can't be created or nothing can be written into it; found before hours of work, not after.
    """
    probe = path / ".vico-eval-write-test"
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise OutputError(
            f"Can't write into {path} ({reason}). Give another folder, or make this one writable."
        ) from error
