"""Errors that a user can act on. The command line shows them without a traceback.

A message states what happened, what was expected and what to do, with the values and the place (file, document,
tensor).
"""

import difflib
from collections.abc import Iterable, Sequence

BAD_INPUT: tuple[type[Exception], ...] = (
    OSError,
    EOFError,
    ValueError,  # includes JSONDecodeError and UnicodeDecodeError
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,  # includes OverflowError and ZeroDivisionError
    RecursionError,
    MemoryError,
)
"""Exceptions that parsing a file, a response or an option from outside can raise, whatever its content.

Catch these only around the few lines that parse. Around computation they would hide our own bugs.
"""

DOCUMENT_FAILURES = (
    RuntimeError,  # includes out-of-memory errors
    ValueError,
    IndexError,
    KeyError,
    TypeError,
    AssertionError,
    ArithmeticError,
    OSError,
)
"""Exceptions that a model, method, tokenizer or image decoder can raise for one bad document."""


class UserError(Exception):
    """Base class for errors in what the user gave. The message alone is enough to fix them."""


class ConfigError(UserError):
    """A setting, method, argument or model card is unknown or out of range."""


class UnknownName(ConfigError):
    """A name that isn't there. The command line adds the command with the nearest name that is."""

    def __init__(self, message: str, name: str, known: Iterable[str]) -> None:
        super().__init__(message)
        self.name = name
        self.near = nearest(name, known)


class CheckpointError(UserError):
    """A checkpoint is missing, incomplete or has the wrong architecture; the message names the tensor or file."""


class MediaError(UserError):
    """An image or a video can't be read; the message names the file."""


class DocumentError(UserError):
    """A document could not be answered; the message names the task and the document."""


class ReportError(UserError):
    """A run's results can't be used, or a table can't be made from the given runs."""


class OutputError(UserError):
    """A file or folder can't be written."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most like this one; None if none is."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return near[0] if near else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint in parentheses with the closest known name; empty if none is close."""
    near = nearest(name, known)
    return f" (did you mean {near!r}?)" if near is not None else ""


def listed(names: Sequence[str], most: int, separator: str = ", ") -> str:
    """Join the first `most` names and append how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return separator.join(names[:most]) + more


def unknown_name(kind: str, name: str, known: Iterable[str], where: str = "") -> ConfigError:
    """The error for an unknown name, which lists the known names and suggests the closest."""
    known = list(known)
    place = f" in {where}" if where else ""
    message = f"unknown {kind} {name!r}{place}{did_you_mean(name, known)}; known are {', '.join(known)}."
    return UnknownName(message, name, known)
