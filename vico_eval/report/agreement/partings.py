"""Find the point at which two answers to a document diverge, and the counts in which their token accounts differ."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from vico_eval.report.stats.loyalty import as_compared, first_difference, num_in_common
from vico_eval.runs.results import Document
from vico_eval.runs.schema import TokenAccount

Encode = Callable[[str], Sequence[int]]
"""A tokenizer's function from a text to token ids."""

_NEW = frozenset({"media", "grids", "compressed", "finish"})
"""Account fields that older versions did not write, so that None is not a difference."""

_BEFORE, _BEHIND = 24, 48
"""Characters of an example before and after the first difference."""


class Parting(NamedTuple):
    """Common prefix of two answers that differ."""

    document: str
    """Name of the document in messages."""

    characters: int
    words: int
    tokens: int | None
    """Common tokens; None without a tokenizer."""

    first: str
    second: str
    """Excerpts of both texts around the first difference."""


def said_by(document: Document) -> str:
    """The model's answer to a document; answers to several requests are on separate lines."""
    return "\n".join(document.said or ())


def parting_of(document: str, one: str, other: str, encode: Encode | None) -> Parting | None:
    """The divergence of two answers to a document; None if they are equal up to surrounding white space."""
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
    """The fields in which two documents' accounts differ; None if either has no account.

    The result is `requests` if the numbers of requests differ.
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
