"""lmms-eval's functions for MMBench in Chinese without a judge: its own prompt and its own static evaluator."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lmms_eval.tasks.mmbench.cn_utils import (
    mmbench_doc_to_text,
    mmbench_doc_to_visual,
    mmbench_evaluator,
    mmbench_process_results,
)

__all__ = ["mmbench_doc_to_text", "mmbench_doc_to_visual"]


def process_results(doc: Mapping[str, Any], results: list[str]) -> dict[str, Any]:
    """Return one row's reply with its question and options, in the evaluator's format."""
    kept: Mapping[str, Any] = mmbench_process_results(doc, results)
    return {"gpt_eval_score": kept["gpt_eval_score"]}


def static_accuracy(outcomes: Iterable[Mapping[str, Any]]) -> float:
    """Return the share of questions with all rotations answered correctly, 0-100; letters are matched by rule."""
    overall, *_ = mmbench_evaluator.eval_result(list(outcomes), eval_method="static")
    return 100 * float(overall)
