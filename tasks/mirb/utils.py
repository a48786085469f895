"""lmms-eval's functions for MIRB: its own prompts and rules, plus a score per question."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import fmean
from typing import Any

from lmms_eval.tasks.mirb.utils import (
    eval_multi_choice,
    eval_open,
    mirb_doc_to_target,
    mirb_doc_to_text,
    mirb_doc_to_visual,
    mirb_process_results,
)

__all__ = ["mirb_doc_to_target", "mirb_doc_to_text", "mirb_doc_to_visual"]

_LETTERS = "ABCDE"


def process_results(doc: Mapping[str, Any], results: list[str]) -> dict[str, dict[str, Any]]:
    """Return one question's outcome: its subset, the parsed answer, and the score, 0 or 1.

    If the correct answer is a letter from A to E, it is compared with the letter at the start of the reply (or the
    whole reply). Any other answer is searched for in the reply, with numbers rounded to two digits.
    """
    read = mirb_process_results(doc, results)["mirb_score"]
    is_letter = len(doc["answers"]) == 1 and doc["answers"] in _LETTERS
    is_right = (eval_multi_choice if is_letter else eval_open)(doc["answers"], read["pred_answer"])
    return {"mirb_micro": {"subset": doc["subset"], "read": read["pred_answer"], "score": float(is_right)}}


def question_mean(outcomes: Iterable[Mapping[str, Any]]) -> float:
    """Return the share of questions answered correctly, 0-1."""
    return fmean(outcome["score"] for outcome in outcomes)
