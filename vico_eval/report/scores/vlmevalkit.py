"""Contribution of each document to a VLMEvalKit score, from the toolkit's tables.

Source: the `evaluate` methods of the data sets in ms-vlmeval 0.0.20, whose results are checked against the documents.
"""

import ast
import math
from collections.abc import Callable, Mapping, Sequence

from vico_eval.report.scores.by_document import (
    ROTATION,
    DocumentScores,
    Terms,
    circular,
    f1,
    from_terms,
    mme,
    over_documents,
)
from vico_eval.runs.results import Document, TaskResult
from vico_eval.score_rules import VLMEvalKit

_AGREEMENT = 1e-6

_FORMULAS = "Handwritten Mathematical Expression Recognition"
_ANLS_THRESHOLD = 0.5


def document_scores(rule: VLMEvalKit, task: TaskResult) -> DocumentScores | None:
    """The documents' scores and values; None if VLMEvalKit's tables lack them or give a different score."""
    scores = read_scores(rule.documents, task.documents, rule.split)
    agrees = scores is not None and abs(float(scores.values.mean()) - rule.score([task])) <= 100 * _AGREEMENT
    return scores if agrees else None


def read_scores(kind: str | None, documents: Sequence[Document], split: str | None) -> DocumentScores | None:
    """The scores and values of a data set's documents.

    Args:
        kind: `vlmevalkit.documents` in the catalogue; None if the score is the mean over documents.
        documents: documents with the fields of `vico_eval.harnesses.vlmevalkit.tables`.
        split: split to which the score is limited; None for all.

    Returns:
        None if a document lacks a column.
    """
    try:
        return from_terms(_mean(documents, split) if kind is None else READERS[kind](documents))
    except (IndexError, KeyError, SyntaxError, TypeError, ValueError):
        return None


def _mean(documents: Sequence[Document], split: str | None) -> Terms:
    strata = ["" if split is None or document.fields["split"] == split else None for document in documents]
    return over_documents([document.fields["score"] for document in documents], strata)


def _pope(documents: Sequence[Document]) -> Terms:
    """F1 over all documents; a question in several categories counts in each, and a missing answer counts as no."""
    outcomes = [(_yes_or_no(document.target), _yes_or_no(document.fields["extracted"])) for document in documents]
    terms = f1(outcomes, [""] * len(documents))
    times = [1 + document.fields["category"].count(",") for document in documents]
    return terms._replace(
        numerators=[number * part for number, part in zip(times, terms.numerators, strict=True)],
        denominators=[number * part for number, part in zip(times, terms.denominators, strict=True)],
    )


def _yes_or_no(text: str) -> str:
    return "yes" if text == "Yes" else "no"


def _mme(documents: Sequence[Document]) -> Terms:
    categories = [document.fields["category"] for document in documents]
    pictures = [(document.fields["category"], document.fields["image_path"]) for document in documents]
    return mme([document.fields["score"] for document in documents], categories, pictures)


def _circular(documents: Sequence[Document]) -> Terms:
    """Accuracy over questions. The tables have one score per question, so rotations have none of their own."""
    scores = {document.doc_id: document.fields["score"] for document in documents if "score" in document.fields}
    questions = [int(document.doc_id) % ROTATION for document in documents]
    terms = circular(
        rights=[scores.get(question, 0.0) for question in questions],
        questions=questions,
        counts=[question in scores for question in questions],
    )
    return terms._replace(rights=[document.fields.get("score", math.nan) for document in documents])


def _anls(documents: Sequence[Document]) -> Terms:
    """One minus the smallest distance to a reference answer; 0 if below one half."""
    nearest = [1 - min(ast.literal_eval(document.fields["eval_match"])) for document in documents]
    return over_documents([near if near >= _ANLS_THRESHOLD else 0.0 for near in nearest], [""] * len(documents))


def _ocrbench(documents: Sequence[Document]) -> Terms:
    """Share of replies that contain a reference answer, ignoring spaces in formulas, and case elsewhere."""
    return over_documents([float(_holds_answer(document)) for document in documents], [""] * len(documents))


def _holds_answer(document: Document) -> bool:
    def plain(text: str) -> str:
        line = text.strip().replace("\n", " ")
        return line.replace(" ", "") if document.fields["category"] == _FORMULAS else line.lower()

    reply = plain(document.fields["prediction"])
    return any(plain(answer) in reply for answer in ast.literal_eval(document.target))


READERS: Mapping[str, Callable[[Sequence[Document]], Terms]] = {
    "anls": _anls,
    "circular": _circular,
    "mme": _mme,
    "ocrbench": _ocrbench,
    "pope": _pope,
}
"""Rules that compute a score from documents, by their name under `vlmevalkit.documents` in the catalogue."""
