"""Scores of two runs and their difference on common documents, with a confidence interval.

The interval is a bootstrap over clusters of documents that share an image or are scored together
(`vico_eval.report.paired.draws`).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from vico_eval.errors import ReportError
from vico_eval.report.agreement.pairs import Pair, Side
from vico_eval.report.paired.columns import columns_of
from vico_eval.report.paired.draws import Draws
from vico_eval.report.paired.pairs import compare_pairs
from vico_eval.report.scores.by_document import DocumentScores
from vico_eval.report.scores.count_run import count_documents
from vico_eval.report.scores.counted import CountedDocuments
from vico_eval.report.scores.score_range import checked_score
from vico_eval.report.stats.measurements import Documents, Measurements
from vico_eval.report.stats.retention import AVERAGE, document_values

_ROWS = ("first", "second")


class Interval(NamedTuple):
    """Score of the second run minus that of the first on common documents, in points."""

    difference: float
    low: float
    high: float
    """Ends of the 95% interval."""


class ScoreDifference(NamedTuple):
    """Two runs' scores; NaN where unknown."""

    first: float
    second: float
    """Score on all documents of a run, 0-100; in the total, the mean over benchmarks that have a difference."""

    lost: float
    gained: float
    """Documents with a lower and with a higher score in the second run."""

    interval: Interval
    left_out: str
    """Reason for a missing difference; in the total, the benchmarks left out."""


class PairScores:
    """Scores of a benchmark in two runs."""

    def __init__(self, pair: Pair) -> None:
        self.title = pair.title
        self.notes: list[str] = []
        self.left_out = "" if pair.is_matched else "its documents can't be matched"
        self.scores = [math.nan, math.nan]
        self.counted: list[CountedDocuments] = []
        """The common documents' scores; empty if either run has none."""

        places = pair.places()
        if pair.first.column is None:
            self.left_out = "not in tasks/benchmarks.yaml"
        elif pair.is_matched and not places[0]:
            self.left_out = "no document in common"
        try:
            self.scores = [_score(pair.title, side) for side in pair[1:]]
            if not self.left_out:
                own = [_count(side, of_both) for side, of_both in zip(pair[1:], places, strict=True)]
                self.counted = [counted for counted in own if counted is not None]
        except ReportError as error:
            # Answers can still be compared.
            self.notes.append(str(error))
            self.left_out = "its scores can't be read"

    def with_interval(self, line: pd.Series) -> ScoreDifference:
        """The difference, from this benchmark's line of `compare_pairs`."""
        first, second = self.scores
        lost, gained = self._changes()
        left_out = self.left_out or str(line["left_out"])
        return ScoreDifference(first, second, lost, gained, _interval(line), left_out)

    def _changes(self) -> tuple[float, float]:
        """Numbers of documents lost and gained; NaN without scores by document."""
        scored = [counted.scored for counted in self.counted if counted.scored is not None]
        if len(scored) < len(_ROWS):
            return math.nan, math.nan
        first, second = scored
        # Documents that don't count towards the score are neither lost nor gained.
        differences = (second.scores - first.scores)[(first.strata >= 0) & (second.strata >= 0)]
        return float((differences < 0).sum()), float((differences > 0).sum())


def score_differences(pairs: Sequence[PairScores]) -> tuple[list[ScoreDifference], ScoreDifference]:
    """The differences by benchmark, and in total."""
    measured = _measurements(pairs)
    titles = [pair.title for pair in pairs]
    draws = Draws(_ROWS, columns_of(measured, _ROWS, titles))
    found = compare_pairs(draws, [(_ROWS[1], _ROWS[0])]).set_index("benchmark")
    lines = [pair.with_interval(found.loc[pair.title]) for pair in pairs]
    compared = [line for line in lines if not math.isnan(line.interval.difference)]
    left_out = [f"{title} ({line.left_out})" for title, line in zip(titles, lines, strict=True) if line.left_out]
    total = ScoreDifference(
        first=_mean([line.first for line in compared]),
        second=_mean([line.second for line in compared]),
        lost=sum(line.lost for line in compared) if compared else math.nan,
        gained=sum(line.gained for line in compared) if compared else math.nan,
        interval=_interval(found.loc[AVERAGE]),
        left_out="; ".join(left_out),
    )
    return lines, total


def _score(title: str, side: Side) -> float:
    """Score on all documents; NaN if some failed, which the toolkit scored as blank answers."""
    if side.column is None or any(document.failure is not None for document in side.documents):
        return math.nan
    return checked_score(title, side.tasks, side.column.rule.score(side.tasks))


def _count(side: Side, places: Sequence[int]) -> CountedDocuments | None:
    """Scores, answers and media of the documents at `places`, in that order."""
    if side.column is None:
        return None
    counted = count_documents(side.column, side.tasks)
    return CountedDocuments(
        scored=None if counted.scored is None else _scores_at(counted.scored, places),
        answers=counted.answers[list(places)],
        media=[counted.media[place] for place in places],
    )


def _scores_at(scored: DocumentScores, places: Sequence[int]) -> DocumentScores:
    at = list(places)
    strata = scored.strata[at]
    # Drop strata without documents.
    present = np.unique(strata[strata >= 0])
    return DocumentScores(
        scores=scored.scores[at],
        values=scored.values[at],
        units=scored.units[at],
        strata=np.where(strata >= 0, np.searchsorted(present, strata), -1),
        points=scored.points,
    )


def _measurements(pairs: Sequence[PairScores]) -> Measurements:
    """The common documents, as measurements of a report with two rows."""
    cells = []
    documents: dict[str, Documents] = {}
    for pair in pairs:
        if not pair.counted:
            continue
        for run, (row, counted) in enumerate(zip(_ROWS, pair.counted, strict=True)):
            failed = int(any(answer is None for answer in counted.answers))
            cells.append({"row": row, "run": run, "benchmark": pair.title, "failed": failed})
        number = len(pair.counted[0].answers)
        documents[pair.title] = Documents(tasks={pair.title: number}, runs=dict(enumerate(pair.counted)))
    frame = pd.DataFrame(cells, columns=["row", "run", "benchmark", "failed"])
    return Measurements(cells=frame, documents=documents, values=document_values(frame, documents), notes=())


def _interval(line: pd.Series) -> Interval:
    return Interval(float(line["difference"]), float(line["low"]), float(line["high"]))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
