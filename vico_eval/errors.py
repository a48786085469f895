"""Errors that a user can act on: the command line shows them without a traceback.

A message says what happened, what was expected and what to do, with the values and the place (file, document, tensor).
"""

import difflib
from collections.abc import Iterable, Sequence

BAD_INPUT: tuple[type[Exception], ...] = (
    OSError,
    EOFError,
    ValueError,  # JSONDecodeError and UnicodeDecodeError are of it
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,  # OverflowError, ZeroDivisionError
    RecursionError,
    MemoryError,
)
"""What reading a file, an answer or an option from outside can raise, whatever is in it.

For the few lines that read, never for those that compute: there it would hide faults of our own.
"""

DOCUMENT_FAILURES = (
    RuntimeError,  # out of memory is of it
    ValueError,
    IndexError,
    KeyError,
    TypeError,
    AssertionError,
    ArithmeticError,
    OSError,
)
"""What a model, a method, a tokenizer or a decoder of pictures can raise for one bad document."""


class UserError(Exception):
    """Something the user gave can't be used; the message is all that they need."""


class ConfigError(UserError):
    """A setting, method, argument or model card is unknown or outside its range."""


class UnknownName(ConfigError):
    """A name that isn't there. The command line adds the command with the nearest name that is."""

    def __init__(self, message: str, name: str, known: Iterable[str]) -> None:
        super().__init__(message)
        self.name = name
        self.near = nearest(name, known)


class CheckpointError(UserError):
    """A checkpoint is missing, incomplete or of another architecture; names the tensor or the file."""


class MediaError(UserError):
    """An image or a video can't be read; names the file."""


class DocumentError(UserError):
    """A document could not be answered; names task and document."""


class ReportError(UserError):
    """A run can't be counted, or a table can't be made from the runs at hand."""


class OutputError(UserError):
    """A file or folder can't be written."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most like this one; None if none is."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return near[0] if near else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint in brackets if a known name is near, else nothing."""
    near = nearest(name, known)
    return f" (did you mean {near!r}?)" if near is not None else ""


def listed(names: Sequence[str], most: int, separator: str = ", ") -> str:
    """The first names, at most so many, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return separator.join(names[:most]) + more


def unknown_name(kind: str, name: str, known: Iterable[str], where: str = "") -> ConfigError:
    """The error for a name that isn't there: lists those that are and suggests the nearest."""
    known = list(known)
    place = f" in {where}" if where else ""
    message = f"unknown {kind} {name!r}{place}{did_you_mean(name, known)}; known are {', '.join(known)}."
    return UnknownName(message, name, known)
