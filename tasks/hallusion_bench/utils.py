"""lmms-eval's functions for HallusionBench without a judge: exact matching of yes and no, and mean of three accuracies.

Source:  HallusionBench's evaluation (accuracy over questions, figures and question pairs); replies are parsed as in
         VLMEvalKit's `YOrN_Extraction`; the end of the prompt is that of its InternVL class.
Differs: VLMEvalKit asks a chat model about a reply with both words or neither; here such a reply is wrong and counted
         as unreadable.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from lmms_eval.tasks.hallusion_bench.evaluate_hb import hb_doc_to_text, hb_doc_to_visual

from vico_eval.errors import DocumentError

__all__ = ["hb_doc_to_text", "hb_doc_to_visual"]

_METRICS = (
    "hallusion_mean",
    "hallusion_questions",
    "hallusion_figures",
    "hallusion_pairs",
    "hallusion_unreadable",
)
_ANSWERS = {"1": "yes", "0": "no"}
_NO_WORD = re.compile(r"[^a-z0-9']+")

Outcome = Mapping[str, Any]


def process_results(doc: Mapping[str, Any], results: list[str]) -> dict[str, dict[str, Any]]:
    """Return one question's outcome under each metric: its groups, the parsed answer, and the score, 0 or 1.

    The answer is None if the reply is unreadable.

    Raises:
        DocumentError: the correct answer is neither yes nor no.
    """
    right = _ANSWERS.get(str(doc["gt_answer"]).strip())
    if right is None:
        raise DocumentError(
            f"question {doc['question_id']} of HallusionBench's set {doc['set_id']} has gt_answer="
            f"{doc['gt_answer']!r}; expected 1 for yes or 0 for no."
        )
    said = read_answer(results[0])
    collection = f"{doc['category']}_{doc['subcategory']}_{doc['set_id']}"
    outcome = {
        "category": doc["category"],
        "set": collection,
        "figure": f"{collection}_{doc['figure_id']}",
        "pair": f"{collection}_{doc['question_id']}",
        "answer": said,
        "score": float(said == right),
    }
    return dict.fromkeys(_METRICS, outcome)


def read_answer(reply: str) -> str | None:
    """Return `yes` or `no` if exactly one of them is a word of the reply, else None."""
    found = {"yes", "no"} & set(_NO_WORD.split(reply.lower()))
    return found.pop() if len(found) == 1 else None


def question_accuracy(outcomes: Iterable[Outcome]) -> float:
    """Return the share of questions answered correctly (aAcc), 0-1."""
    return fmean(outcome["score"] for outcome in outcomes)


def figure_accuracy(outcomes: Iterable[Outcome]) -> float:
    """Return the share of figures whose questions are all answered correctly (fAcc), 0-1."""
    return _all_right(outcomes, "figure")


def pair_accuracy(outcomes: Iterable[Outcome]) -> float:
    """Return the share of questions answered correctly for all of their figures (qAcc), 0-1."""
    return _all_right(outcomes, "pair")


def mean_accuracy(outcomes: Sequence[Outcome]) -> float:
    """Return the plain mean of the three accuracies, 0-1."""
    return fmean((question_accuracy(outcomes), figure_accuracy(outcomes), pair_accuracy(outcomes)))


def count_unreadable(outcomes: Iterable[Outcome]) -> int:
    """Return the number of replies that are neither yes nor no; they count as wrong."""
    return sum(outcome["answer"] is None for outcome in outcomes)


def _all_right(outcomes: Iterable[Outcome], of: str) -> float:
    groups: dict[Hashable, list[float]] = {}
    for outcome in outcomes:
        groups.setdefault(outcome[of], []).append(outcome["score"])
    return fmean(float(all(scores)) for scores in groups.values())
