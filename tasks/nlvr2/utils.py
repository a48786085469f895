"""lmms-eval's functions for NLVR2: two images, a statement with two options, and parsing of the letter.

Source:  AVTP's released evaluation (data; the first character of a reply counts, after any opening bracket).
Differs: that code prints the options as a Python list and ends with "Answer the question directly, without any
         additional content."; here options are on separate lines, and the request for a letter is that of lmms-eval's
         other tasks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from PIL import Image

_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_METRICS = ("nlvr2_accuracy", "nlvr2_unreadable")
_POST_PROMPT = "Answer with the option's letter from the given choices directly."
_LETTER = re.compile(r"\(?[A-Z][).:]\s*")


def doc_to_visual(doc: Mapping[str, Any]) -> list[Image.Image]:
    """Return the left and the right image, RGB."""
    return [image.convert("RGB") for image in doc["images"]]


def doc_to_text(doc: Mapping[str, Any]) -> str:
    """Return the question, the options with their letters, and the request for a letter."""
    return "\n".join([doc["question"], *lettered(doc["options"]), _POST_PROMPT])


def process_results(doc: Mapping[str, Any], results: list[str]) -> dict[str, dict[str, Any]]:
    """Return one statement's outcome under each metric: parsed letter (None if unreadable), score 0 or 1."""
    letter = read_letter(results[0], len(doc["options"]))
    outcome = {"letter": letter, "score": float(letter == doc["answer"].strip("() "))}
    return dict.fromkeys(_METRICS, outcome)


def lettered(options: Sequence[str]) -> list[str]:
    """Return the options as `A. text`, replacing any letter that they already have."""
    return [f"{letter}. {_LETTER.sub('', text, count=1)}" for letter, text in zip(_ALPHABET, options, strict=False)]


def read_letter(reply: str, num_options: int) -> str | None:
    """Return the option letter at the start of the reply, in either case and after any opening bracket, or None."""
    begins = reply.strip().lstrip("(")[:1].upper()
    return begins if begins and begins in _ALPHABET[:num_options] else None


def accuracy(outcomes: Iterable[Mapping[str, Any]]) -> float:
    """Return the share of statements judged correctly, 0-1."""
    return fmean(outcome["score"] for outcome in outcomes)


def count_unreadable(outcomes: Iterable[Mapping[str, Any]]) -> int:
    """Return the number of replies that don't begin with an option's letter; they count as wrong."""
    return sum(outcome["letter"] is None for outcome in outcomes)
