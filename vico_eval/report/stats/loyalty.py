"""Agreement of a row's answers with the baseline's, whether right or wrong. Equal scores can hide different answers."""

import unicodedata
from collections.abc import Mapping, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
import pandas as pd

from vico_eval.report.scores.counted import CountedDocuments
from vico_eval.report.stats.measurements import Measurements
from vico_eval.report.stats.retention import AVERAGE, runs_by_cell, why_left_out

COLUMNS = (
    *("row", "benchmark", "documents", "same_answer", "lost", "gained"),
    *("first_difference_characters", "first_difference_words", "left_out"),
)


class FirstDifference(NamedTuple):
    """Length of the common prefix of two answers that differ."""

    characters: int
    words: int


def loyalty(measured: Measurements, rows: Sequence[str], benchmarks: Sequence[str], baseline: str) -> pd.DataFrame:
    """Compare each row's answers with the baseline's, by benchmark and for `Avg.`

    If a row or the baseline has several runs, all pairs of runs are compared.

    Returns:
        One line per row other than the baseline and benchmark, with the columns `COLUMNS`: documents (their number),
        same_answer (percentage with equal answers, ignoring leading and trailing white space), lost and gained
        (documents with a lower or a higher score than in the baseline, such as right to wrong and wrong to right; mean
        over pairs of runs; documents that don't count towards the score, such as SEED's videos, are left out; NaN
        without scores by document), first_difference_characters and _words (median common prefix of answers that
        differ), and left_out (reason for missing numbers). `Avg.` has the mean of the benchmarks' percentages, the sums
        of their documents, and the overall median.
    """
    others = [row for row in rows if row != baseline]
    lines: dict[str, list[dict[str, object]]] = {row: [] for row in others}
    partings: dict[str, list[FirstDifference]] = {row: [] for row in others}
    reasons = why_left_out(measured.cells, rows, benchmarks)
    runs = runs_by_cell(measured.cells)
    for benchmark in benchmarks:
        documents = measured.documents.get(benchmark)
        for row in others:
            left_out = reasons[row, benchmark] or reasons[baseline, benchmark]
            line: dict[str, object] = {"row": row, "benchmark": benchmark, "left_out": left_out}
            if documents is not None and not left_out:
                own, base = runs[row, benchmark], runs[baseline, benchmark]
                found = _partings(documents.runs, own, base)
                num_documents = len(documents.runs[own[0]].answers)
                line["documents"] = num_documents
                line["same_answer"] = 100 * (1 - len(found) / (len(own) * len(base) * num_documents))
                line = {**line, **_changes(documents.runs, own, base), **_medians(found)}
                partings[row].extend(found)
            lines[row].append(line)
    return pd.DataFrame(
        [line for row in others for line in (*lines[row], {**_total(row, lines[row]), **_medians(partings[row])})],
        columns=list(COLUMNS),
    )


def first_difference(one: str, other: str) -> FirstDifference | None:
    """The common prefix of two answers that differ; None if they are equal up to surrounding white space and Unicode
    composition."""
    if one == other or (one := as_compared(one)) == (other := as_compared(other)):
        return None
    return FirstDifference(num_in_common(one, other), num_in_common(one.split(), other.split()))


def _partings(runs: Mapping[int, CountedDocuments], own: Sequence[int], base: Sequence[int]) -> list[FirstDifference]:
    """First differences of all pairs of answers that differ."""
    found = []
    for run, other in product(own, base):
        answers, others = runs[run].answers, runs[other].answers
        differ = answers != others
        found += [first_difference(*pair) for pair in zip(answers[differ], others[differ], strict=True)]
    return [parting for parting in found if parting is not None]


def _changes(runs: Mapping[int, CountedDocuments], own: Sequence[int], base: Sequence[int]) -> dict[str, float]:
    """Documents lost and gained, mean over pairs of runs; empty without scores by document."""
    scored = {run: runs[run].scored for run in (*own, *base)}
    # Documents that don't count towards the score are neither lost nor gained.
    scores = {run: known.scores[known.strata >= 0] for run, known in scored.items() if known is not None}
    if len(scores) < len(scored):
        return {}
    differences = [scores[run] - scores[other] for run, other in product(own, base)]
    return {
        "lost": float(np.mean([(difference < 0).sum() for difference in differences])),
        "gained": float(np.mean([(difference > 0).sum() for difference in differences])),
    }


def _total(row: str, lines: Sequence[dict[str, object]]) -> dict[str, object]:
    """The `Avg.` line of a row; sums are over the benchmarks with known numbers."""
    frame = pd.DataFrame(lines, columns=list(COLUMNS))
    total = {"row": row, "benchmark": AVERAGE, "same_answer": frame["same_answer"].mean()}
    left_out = [
        f"{benchmark} ({reason})"
        for benchmark, reason in zip(frame["benchmark"], frame["left_out"], strict=True)
        if reason
    ]
    return total | dict(frame[["documents", "lost", "gained"]].sum(min_count=1)) | {"left_out": "; ".join(left_out)}


def _medians(partings: Sequence[FirstDifference]) -> dict[str, float]:
    if not partings:
        return {}
    return {
        "first_difference_characters": float(np.median([parting.characters for parting in partings])),
        "first_difference_words": float(np.median([parting.words for parting in partings])),
    }


def num_in_common(one: Sequence[object], other: Sequence[object]) -> int:
    """Length of the common prefix of two sequences."""
    for place, (item, its) in enumerate(zip(one, other, strict=False)):
        if item != its:
            return place
    return min(len(one), len(other))


def as_compared(text: str) -> str:
    """An answer normalised for comparison: surrounding white space is stripped, and Unicode is composed (NFC)."""
    return unicodedata.normalize("NFC", text).strip()
