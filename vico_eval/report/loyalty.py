"""How far a row answers as the baseline does, whether right or wrong: the same score can hide other answers."""

import unicodedata
from collections.abc import Sequence
from itertools import product, takewhile
from typing import NamedTuple

import numpy as np
import pandas as pd

from vico_eval.report.measurements import Measurements
from vico_eval.report.tables import AVERAGE, by_document, why_left_out

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
        right; the mean over pairs of runs; NaN where the benchmark has no score by document),
        first_difference_characters and _words (how much the answers that differ have in common at their start; median),
        and left_out (why there is no number). `Avg.` has the mean of the benchmarks' percentages, the sums of their
        documents, and the median over all.
    """
    others = [row for row in rows if row != baseline]
    lines: dict[str, list[dict[str, object]]] = {row: [] for row in others}
    partings: dict[str, list[FirstDifference]] = {row: [] for row in others}
    for benchmark in benchmarks:
        documents = measured.documents[measured.documents["benchmark"] == benchmark]
        answers, scores = by_document(documents, "answer"), by_document(documents, "score")
        for row in others:
            reasons = [why_left_out(measured.cells, one, benchmark) for one in (row, baseline)]
            left_out = next(filter(None, reasons), "")
            line: dict[str, object] = {"row": row, "benchmark": benchmark, "left_out": left_out}
            if not left_out:
                own, base = (_runs(measured.cells, one, benchmark) for one in (row, baseline))
                found = _partings(answers, own, base)
                pairs = len(own) * len(base) * len(answers)
                line["documents"] = len(answers)
                line["same_answer"] = 100 * (1 - len(found) / pairs)
                line = {**line, **_changes(scores, own, base), **_medians(found)}
                partings[row].extend(found)
            lines[row].append(line)
    return pd.DataFrame(
        [line for row in others for line in (*lines[row], {**_total(row, lines[row]), **_medians(partings[row])})],
        columns=list(COLUMNS),
    )


def first_difference(one: str, other: str) -> FirstDifference | None:
    """Where two answers part; None where they are the same. White space around them and the composition of Unicode
    characters don't count."""
    if one == other or (one := _plain(one)) == (other := _plain(other)):
        return None
    return FirstDifference(_num_in_common(one, other), _num_in_common(one.split(), other.split()))


def _runs(cells: pd.DataFrame, row: str, benchmark: str) -> list[int]:
    return list(cells.loc[(cells["row"] == row) & (cells["benchmark"] == benchmark), "run"])


def _partings(answers: pd.DataFrame, own: Sequence[int], base: Sequence[int]) -> list[FirstDifference]:
    """Of every pair of answers that differ."""
    found = (
        first_difference(*pair)
        for run, other in product(own, base)
        for pair in zip(answers[run], answers[other], strict=True)
    )
    return [parting for parting in found if parting is not None]


def _changes(scores: pd.DataFrame, own: Sequence[int], base: Sequence[int]) -> dict[str, float]:
    """Documents lost and gained, mean over pairs of runs; empty where there is no score by document."""
    if scores[[*own, *base]].isna().any(axis=None):
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
    characters, words = np.median(np.array(partings), axis=0)
    return {"first_difference_characters": float(characters), "first_difference_words": float(words)}


def _num_in_common(one: Sequence[str], other: Sequence[str]) -> int:
    """How many items two sequences share at their start."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _plain(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip()
