"""What lmms-eval calls for NLVR2: two pictures, a statement, two options, and the letter read.

Source:  AVTP's released evaluation (data, and a reply read by its first character behind an opening bracket).
Differs: that code prints the options as a Python list and ends "Answer the question directly, without any additional
         content."; here they stand one a line, and the request for a letter is that of lmms-eval's other tasks.
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
    """The left and the right picture, RGB."""
    return [image.convert("RGB") for image in doc["images"]]


def doc_to_text(doc: Mapping[str, Any]) -> str:
    """Question, options with their letters, and the request for one."""
    return "\n".join([doc["question"], *lettered(doc["options"]), _POST_PROMPT])


def process_results(doc: Mapping[str, Any], results: list[str]) -> dict[str, dict[str, Any]]:
    """One statement's outcome under each metric: letter read (None if unreadable), score 0 or 1."""
    letter = read_letter(results[0], len(doc["options"]))
    outcome = {"letter": letter, "score": float(letter == doc["answer"].strip("() "))}
    return dict.fromkeys(_METRICS, outcome)


def lettered(options: Sequence[str]) -> list[str]:
    """Options as `A. text`, whether or not they have a letter already."""
    return [f"{letter}. {_LETTER.sub('', text, count=1)}" for letter, text in zip(_ALPHABET, options, strict=False)]


def read_letter(reply: str, num_options: int) -> str | None:
    """The option whose letter the reply begins with, in any case and also in brackets; None if it begins otherwise."""
    begins = reply.strip().lstrip("(")[:1].upper()
    return begins if begins and begins in _ALPHABET[:num_options] else None


def accuracy(outcomes: Iterable[Mapping[str, Any]]) -> float:
    """Share of statements judged right, 0-1."""
    return fmean(outcome["score"] for outcome in outcomes)


def count_unreadable(outcomes: Iterable[Mapping[str, Any]]) -> int:
    """Replies that begin with no option's letter; they count as wrong."""
    return sum(outcome["letter"] is None for outcome in outcomes)
