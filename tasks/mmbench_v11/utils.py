"""lmms-eval's functions for MMBench V1.1: its MMBench prompts, exact matching of letters, and circular evaluation.

Source:  MMBench's circular evaluation; exact matching as in VLMEvalKit (`can_infer`).
Differs: VLMEvalKit asks a chat model if matching finds no letter; here such a reply is wrong and counted as unreadable.
         A question that lacks a rotation is left out and counted as incomplete; VLMEvalKit scores the rotations it has.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from lmms_eval.tasks.mmbench.en_utils import mmbench_doc_to_text as doc_to_text
from lmms_eval.tasks.mmbench.en_utils import mmbench_doc_to_visual as doc_to_visual

from vico_eval.errors import DocumentError

__all__ = ["circular_accuracy", "count_incomplete", "count_unreadable", "doc_to_text", "doc_to_visual"]

_LETTERS = "ABCD"
_ROTATION = 1_000_000
_LAST_WORDS = 4
_PUNCTUATION = re.compile(r"[.()\[\],:;!*#{}]")


def process_results(doc: Mapping[str, Any], results: list[str]) -> dict[str, dict[str, Any]]:
    """Return one row's outcome under each metric: index, number of options, category, parsed letter, score 0 or 1.

    The letter is None if the reply is unreadable.

    Raises:
        DocumentError: the row's answer is not a letter of its options, as in the test split, whose answers are secret.
    """
    choices = options(doc)
    if doc["answer"] not in choices:
        raise DocumentError(
            f"row {doc['index']} of MMBench V1.1 has the answer {doc['answer']!r}; expected one of "
            f"{', '.join(choices)}. Answers of the test split are not public; use the dev split."
        )
    letter = read_letter(results[0], choices)
    outcome = {
        "index": int(doc["index"]),
        "options": len(choices),
        "L2-category": str(doc.get("L2-category") or ""),
        "letter": letter,
        "score": float(letter == doc["answer"]),
    }
    return dict.fromkeys(("mmbench_v11_exact", "mmbench_v11_unreadable", "mmbench_v11_incomplete"), outcome)


def options(doc: Mapping[str, Any]) -> dict[str, str]:
    """Return a row's options by letter; missing options are stored as null, an empty text or the text `nan`."""
    stored = {letter: str(doc.get(letter) or "").strip() for letter in _LETTERS}
    return {letter: text for letter, text in stored.items() if text not in ("", "nan")}


def read_letter(reply: str, choices: Mapping[str, str]) -> str | None:
    """Return the letter of the option that a reply names, or None.

    This is the only option letter that is a separate word, if it is among the last four words; otherwise the only
    option whose text occurs in the reply, ignoring case.
    """
    words = _PUNCTUATION.sub(" ", reply).split()
    named = [letter for letter in choices if letter in words]
    if len(named) == 1 and words.index(named[0]) >= len(words) - _LAST_WORDS:
        return named[0]
    quoted = [letter for letter, text in choices.items() if text.lower() in reply.lower()]
    return quoted[0] if len(quoted) == 1 else None


def circular_accuracy(outcomes: Iterable[Mapping[str, Any]]) -> float:
    """Return the share of questions with all rotations answered correctly, 0-1; NaN if no question is complete."""
    complete = [rows for rows in _questions(outcomes) if _is_complete(rows)]
    return sum(all(row["score"] for row in rows) for rows in complete) / len(complete) if complete else float("nan")


def count_unreadable(outcomes: Iterable[Mapping[str, Any]]) -> int:
    """Return the number of replies without a letter; they count as wrong."""
    return sum(outcome["letter"] is None for outcome in outcomes)


def count_incomplete(outcomes: Iterable[Mapping[str, Any]]) -> int:
    """Return the number of questions that lack a rotation, as at the end of a limited run; they are not scored."""
    return sum(not _is_complete(rows) for rows in _questions(outcomes))


def _questions(outcomes: Iterable[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    by_question: dict[int, list[Mapping[str, Any]]] = {}
    for outcome in outcomes:
        by_question.setdefault(outcome["index"] % _ROTATION, []).append(outcome)
    return list(by_question.values())


def _is_complete(rows: list[Mapping[str, Any]]) -> bool:
    # A question has one rotation for each of its options.
    return len({row["index"] for row in rows}) >= rows[0]["options"]
