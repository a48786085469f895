"""Results go to stdout and can be piped; progress, warnings and closing lines go to stderr."""

from pathlib import Path

from vico_eval.errors import OutputError
from vico_eval.terminal import SafeConsole

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
