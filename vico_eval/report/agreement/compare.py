"""Agreement statistics of two runs, by benchmark and overall.

Answers are compared as the models gave them, before a task's filters, so runs with equal scores may still differ.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vico_eval.errors import ReportError
from vico_eval.report.agreement.pairs import Pair, pair_runs
from vico_eval.report.agreement.partings import Encode, Parting, different_counts, parting_of, said_by
from vico_eval.report.agreement.records import RecordDifference, record_differences
from vico_eval.report.agreement.scores import PairScores, ScoreDifference, score_differences
from vico_eval.runs.read import read_run
from vico_eval.runs.schema import RunRecord

ALL = "All"


class Counts(NamedTuple):
    """Numbers of documents."""

    documents: int
    """Documents in both runs."""

    only_first: int
    only_second: int
    """Documents in only one run."""

    failed_first: int
    failed_second: int
    """Documents in both runs that one run failed to answer."""

    compared: int
    """Documents that both runs answered."""

    same_answers: int
    """Compared documents with the same answer, ignoring leading and trailing white space."""

    with_accounts: int
    """Compared documents with token accounts in both runs."""

    same_accounts: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """Agreement of two runs on one benchmark, or on all."""

    benchmark: str
    counts: Counts
    scores: ScoreDifference

    different_counts: Mapping[str, int]
    """Number of documents whose token accounts differ, by field, in descending order."""

    partings: tuple[Parting, ...]
    """Divergences of the answers that differ."""

    @property
    def same_percent(self) -> float:
        """Percentage of compared documents with the same answer; NaN if none was compared."""
        return 100 * self.counts.same_answers / self.counts.compared if self.counts.compared else math.nan

    @property
    def is_complete(self) -> bool:
        """True if both runs have the same documents with the same answers."""
        counts = self.counts
        alone = counts.only_first + counts.only_second
        return 0 < counts.documents == counts.compared == counts.same_answers and not alone

    def first_difference(self, unit: str) -> float:
        """Median length of the common prefix of answers that differ, in `characters`, `words` or `tokens`."""
        known = [value for parting in self.partings if (value := getattr(parting, unit)) is not None]
        return float(np.median(known)) if known else math.nan


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """The comparison of two runs."""

    name: str
    """Name of the pair if there are several; else empty."""

    folders: tuple[Path, Path]
    records: tuple[RunRecord, RunRecord]
    benchmarks: tuple[Agreement, ...]
    total: Agreement
    different_conditions: tuple[RecordDifference, ...]
    notes: tuple[str, ...]

    @property
    def lines(self) -> tuple[Agreement, ...]:
        """The benchmarks' agreements, followed by the total if there are several."""
        return (*self.benchmarks, self.total) if len(self.benchmarks) > 1 else self.benchmarks

    def examples(self, most: int) -> list[tuple[str, Parting]]:
        """The first `most` documents whose answers differ, with their benchmarks, taking one from each benchmark in
        turn."""
        turns = [
            (one.benchmark, parting)
            for turn in range(most)
            for one in self.benchmarks
            for parting in one.partings[turn : turn + 1]
        ]
        return turns[:most]


def compare_runs(first: Path, second: Path, *, encode: Encode | None = None, name: str = "") -> Comparison:
    """Compare the finished runs in two folders.

    Args:
        first: lmms-eval's --output_path or VLMEvalKit's --work-dir.
        second: the same for the other run.
        encode: a tokenizer to count common tokens with; None to count only words and characters.
        name: name of the pair.

    Raises:
        ReportError: both folders are the same, one is not a finished run, or the runs have different documents.
    """
    if first.resolve() == second.resolve():
        raise ReportError(f"{first} was given twice. Give two runs.")
    runs = read_run(first), read_run(second)
    pairs = pair_runs(*runs)
    scores = [PairScores(pair) for pair in pairs.benchmarks]
    differences, total = score_differences(scores)
    lines = [_agreement(pair, own, encode) for pair, own in zip(pairs.benchmarks, differences, strict=True)]
    notes = [f"{run.folder}: {note}" for run in runs for note in run.notes]
    notes += [*pairs.notes, *(note for one in scores for note in one.notes)]
    return Comparison(
        name=name,
        folders=(first, second),
        records=(runs[0].record, runs[1].record),
        benchmarks=tuple(lines),
        total=_in_all(lines, total),
        different_conditions=tuple(record_differences(*runs)),
        notes=tuple(dict.fromkeys(notes)),
    )


def _agreement(pair: Pair, scores: ScoreDifference, encode: Encode | None) -> Agreement:
    documents, others, names = pair.first.documents, pair.second.documents, pair.first.names
    both = [(names[own], documents[own], others[other]) for own, other in zip(*pair.places(), strict=True)]
    answered = [(name, own, other) for name, own, other in both if None not in (own.said, other.said)]
    partings = [parting_of(name, said_by(own), said_by(other), encode) for name, own, other in answered]
    fields = [different_counts(own.account, other.account) for _, own, other in answered]
    known = [own for own in fields if own is not None]
    # Without matching, it is unknown which documents both runs have.
    alone = [len(side.documents) - len(both) if pair.is_matched else 0 for side in pair[1:]]
    return Agreement(
        benchmark=pair.title,
        counts=Counts(
            documents=len(both),
            only_first=alone[0],
            only_second=alone[1],
            failed_first=sum(own.said is None for _, own, _ in both),
            failed_second=sum(other.said is None for _, _, other in both),
            compared=len(answered),
            same_answers=sum(parting is None for parting in partings),
            with_accounts=len(known),
            same_accounts=sum(not own for own in known),
        ),
        scores=scores,
        different_counts=dict(Counter(name for own in known for name in own).most_common()),
        partings=tuple(parting for parting in partings if parting is not None),
    )


def _in_all(lines: Sequence[Agreement], scores: ScoreDifference) -> Agreement:
    fields: Counter[str] = Counter()
    for line in lines:
        fields.update(line.different_counts)
    return Agreement(
        benchmark=ALL,
        counts=Counts(*(sum(numbers) for numbers in zip(*(line.counts for line in lines), strict=True))),
        scores=scores,
        different_counts=dict(fields.most_common()),
        partings=tuple(parting for line in lines for parting in line.partings),
    )
