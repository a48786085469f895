"""How far a row answers as the baseline does, whether right or wrong: the same score can hide other answers."""

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
    """How much two answers have in common before they part."""

    characters: int
    words: int


def loyalty(measured: Measurements, rows: Sequence[str], benchmarks: Sequence[str], baseline: str) -> pd.DataFrame:
    """Each row's answers against the baseline's, by benchmark and for `Avg.`

    Where a row or the baseline has several runs, each is paired with each.

    Returns:
        A line a row other than the baseline and benchmark, with the columns `COLUMNS`:
        documents (their number), same_answer (percent of them whose answers are the same but for white space around
        them), lost and gained (documents that score less or more than with the baseline: right to wrong and wrong to
        right; the mean over pairs of runs; documents that take no part in the score, as SEED's videos, don't count; NaN
        where the benchmark has no score by document),
        first_difference_characters and _words (how much the answers that differ have in common at their start; median),
        and left_out (why there is no number). `Avg.` has the mean of the benchmarks' percentages, the sums of their
        documents, and the median over all.
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
    """Where two answers part; None where they are the same. White space around them and the composition of Unicode
    characters don't count."""
    if one == other or (one := as_compared(one)) == (other := as_compared(other)):
        return None
    return FirstDifference(num_in_common(one, other), num_in_common(one.split(), other.split()))


def _partings(runs: Mapping[int, CountedDocuments], own: Sequence[int], base: Sequence[int]) -> list[FirstDifference]:
    """Of every pair of answers that differ."""
    found = []
    for run, other in product(own, base):
        answers, others = runs[run].answers, runs[other].answers
        differ = answers != others
        found += [first_difference(*pair) for pair in zip(answers[differ], others[differ], strict=True)]
    return [parting for parting in found if parting is not None]


def _changes(runs: Mapping[int, CountedDocuments], own: Sequence[int], base: Sequence[int]) -> dict[str, float]:
    """Documents lost and gained, mean over pairs of runs; empty where there is no score by document."""
    scored = {run: runs[run].scored for run in (*own, *base)}
    # Those that take no part in the benchmark's score are none of its lost ones.
    scores = {run: known.scores[known.strata >= 0] for run, known in scored.items() if known is not None}
    if len(scores) < len(scored):
        return {}
    differences = [scores[run] - scores[other] for run, other in product(own, base)]
    return {
        "lost": float(np.mean([(difference < 0).sum() for difference in differences])),
        "gained": float(np.mean([(difference > 0).sum() for difference in differences])),
    }


def _total(row: str, lines: Sequence[dict[str, object]]) -> dict[str, object]:
    """The `Avg.` line of a row; a sum is over the benchmarks that have the number."""
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
    """How many items two sequences share at their start."""
    for place, (item, its) in enumerate(zip(one, other, strict=False)):
        if item != its:
            return place
    return min(len(one), len(other))


def as_compared(text: str) -> str:
    """An answer as it is compared: white space around it and the composition of its characters don't count."""
    return unicodedata.normalize("NFC", text).strip()
