"""Where two answers to the same document part, and how many of their accounts' counts are the same."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from vico_eval.report.stats.loyalty import as_compared, first_difference, num_in_common
from vico_eval.runs.results import Document
from vico_eval.runs.schema import TokenAccount

Encode = Callable[[str], Sequence[int]]
"""A tokenizer: the token ids of a text."""

_NEW = frozenset({"media", "grids", "compressed", "finish"})
"""Fields of an account that older versions did not write: None says nothing there."""

_BEFORE, _BEHIND = 24, 48
"""Characters of an example on each side of the first difference."""


class Parting(NamedTuple):
    """What two answers that differ have in common at their start."""

    document: str
    """As messages name it."""

    characters: int
    words: int
    tokens: int | None
    """By a tokenizer of the texts; None without one."""

    first: str
    second: str
    """Both texts around the place."""


def said_by(document: Document) -> str:
    """What the model said to a document, the answers to several requests on lines of their own."""
    return "\n".join(document.said or ())


def parting_of(document: str, one: str, other: str, encode: Encode | None) -> Parting | None:
    """Where two answers to a document part; None where they are the same, white space around them apart."""
    found = first_difference(one, other)
    if found is None:
        return None
    one, other = as_compared(one), as_compared(other)
    return Parting(
        document=document,
        characters=found.characters,
        words=found.words,
        tokens=None if encode is None else num_in_common(encode(one), encode(other)),
        first=_around(one, found.characters),
        second=_around(other, found.characters),
    )


def different_counts(
    first: Sequence[TokenAccount] | None, second: Sequence[TokenAccount] | None
) -> tuple[str, ...] | None:
    """The fields in which two documents' accounts differ; None where one has none.

    `requests` is among them where the documents took different numbers of requests.
    """
    if first is None or second is None:
        return None
    if len(first) != len(second):
        return ("requests",)
    return tuple(name for name in TokenAccount.model_fields if _differs(name, first, second))


def _differs(name: str, first: Sequence[TokenAccount], second: Sequence[TokenAccount]) -> bool:
    pairs = [(getattr(own, name), getattr(other, name)) for own, other in zip(first, second, strict=True)]
    return any(own != other for own, other in pairs if name not in _NEW or None not in (own, other))


def _around(text: str, place: int) -> str:
    start, end = max(0, place - _BEFORE), place + _BEHIND
    return f"{'…' if start else ''}{text[start:end]}{'…' if end < len(text) else ''}"
