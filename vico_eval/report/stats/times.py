"""What a row's answers took, relative to the baseline: mean seconds per document, from the runs' journals.

Batches are timed, not documents, and the machine may have other work, so there is no standard error. Two rows are
compared only if they answered the same documents, all of them timed, under the same conditions.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import pandas as pd

from vico_eval.report.scores.counted import CountedRun
from vico_eval.runs.results import TimeSums
from vico_eval.runs.schema import RunRecord

ALL = "All documents"
"""In place of a benchmark's title: all that a row answered."""

MIB = 2.0**20

COLUMNS = (
    *("row", "benchmark", "documents", "timed_documents"),
    *("reading_seconds", "encoding_seconds", "own_seconds", "alone_seconds", "prefill_seconds", "decode_seconds"),
    *("own_relative", "alone_relative", "peak_mib"),
    *("rows_sharing", "device", "batch_size", "processes", "not_comparable"),
)


@dataclass(kw_only=True, slots=True)
class _Timed:
    """What runs of a row took, on one benchmark or on all."""

    documents: Counter[str] = field(default_factory=Counter)
    """By benchmark, of all runs: how many there are, timed or not."""

    sums: TimeSums = field(default_factory=TimeSums)
    records: list[RunRecord] = field(default_factory=list)
    """Of the runs that have times."""

    def add(self, benchmark: str, documents: int, sums: TimeSums, record: RunRecord) -> None:
        self.documents[benchmark] += documents
        self.sums += sums
        if sums.documents:
            self.records.append(record)


def document_times(
    runs: Sequence[CountedRun], rows: Sequence[str], benchmarks: Sequence[str], baseline: str
) -> pd.DataFrame | None:
    """What each row's documents took, by benchmark and over all of them (`ALL`).

    A batch may hold documents of several benchmarks, long and short ones, and each gets an even share of its time: the
    sums over all documents are right, those of a benchmark are only as good as that.

    Returns:
        A line a row and benchmark that it was run on, with the columns `COLUMNS`: documents (their number, over all of
        the row's runs), timed_documents (those with a time for every answer; the seconds are means over these),
        reading_seconds, encoding_seconds and own_seconds (as in `AnswerSeconds`, per document), alone_seconds (encoding
        and own: what the row would take by itself, since reading runs beside the model), prefill_seconds and
        decode_seconds (parts of own, where all timed documents have them), own_relative and alone_relative (percent of
        the baseline's), peak_mib (the most memory of any batch during own, on CUDA), rows_sharing (how many rows
        reading and encoding were for), device, batch_size and processes (of the runs with times), and not_comparable
        (why there is no percentage). None where no row has times.
    """
    timed = {row: _by_benchmark([run for run in runs if run.row == row], benchmarks) for row in rows}
    if not any(own[ALL].sums.documents for own in timed.values()):
        return None
    lines = [
        _line(own, timed[baseline].get(benchmark, _Timed()), baseline) | {"row": row, "benchmark": benchmark}
        for row in rows
        for benchmark, own in timed[row].items()
    ]
    return pd.DataFrame(lines, columns=list(COLUMNS))


def _by_benchmark(runs: Sequence[CountedRun], benchmarks: Sequence[str]) -> dict[str, _Timed]:
    """What the runs of one row took, by benchmark and, last, in all."""
    timed: dict[str, _Timed] = {}
    total = _Timed()
    for benchmark in benchmarks:
        for run in runs:
            counted = run.benchmarks.get(benchmark)
            if counted is None or not counted.tasks:
                continue
            documents = sum(len(task.doc_ids) for task in counted.tasks)
            for place in (timed.setdefault(benchmark, _Timed()), total):
                place.add(benchmark, documents, counted.times, run.record)
    return timed | {ALL: total}


def _line(own: _Timed, base: _Timed, baseline: str) -> dict[str, object]:
    line: dict[str, object] = {"documents": own.documents.total(), "timed_documents": own.sums.documents}
    line["not_comparable"] = _why_not_comparable(own, base, baseline)
    if not own.sums.documents:
        return line
    means = _means(own.sums)
    line |= {f"{name}_seconds": seconds for name, seconds in means.items()}
    if not line["not_comparable"]:
        others = _means(base.sums)
        line |= {f"{name}_relative": 100 * means[name] / others[name] for name in ("own", "alone")}
    conditions = [_conditions(record) for record in own.records]
    return line | {
        "peak_mib": own.sums.peak_bytes / MIB or None,
        "rows_sharing": _listed(sorted(own.sums.rows)),
        "device": _listed([each["device"] for each in conditions]),
        "batch_size": _listed([each["batch size"] for each in conditions]),
        "processes": _listed([each["number of processes"] for each in conditions]),
    }


def _means(sums: TimeSums) -> dict[str, float]:
    """Seconds per document."""
    totals = {"reading": sums.reading, "encoding": sums.encoding, "own": sums.own, "alone": sums.encoding + sums.own}
    if sums.staged_documents == sums.documents:
        totals |= {"prefill": sums.prefill, "decode": sums.decode}
    return {name: total / sums.documents for name, total in totals.items()}


def _why_not_comparable(own: _Timed, base: _Timed, baseline: str) -> str:
    """Why a row's times are not set against the baseline's, in words; empty where they are."""
    for name, timed in (("", own), (f"{baseline}: ", base)):
        known, documents = timed.sums.documents, timed.documents.total()
        if known < documents or not documents:
            return f"{name}{f'only {known} of {documents}' if known else 'no'} documents have times"
    if _shares(own) != _shares(base):
        return f"{baseline} answered other documents"
    if different := _different_conditions([*own.records, *base.records]):
        return f"this row and {baseline} differ in {'; '.join(different)}"
    return "" if base.sums.own > 0 else f"{baseline} took no time"


def _shares(timed: _Timed) -> dict[str, Fraction]:
    """Each benchmark's share of the documents, which is the same for one run and for several of the same benchmarks."""
    total = timed.documents.total()
    return {name: Fraction(number, total) for name, number in timed.documents.items()}


def _different_conditions(records: Sequence[RunRecord]) -> list[str]:
    """Conditions that affect times and differ between runs, each with its values."""
    all_of_them = [_conditions(record) for record in records]
    names = dict.fromkeys(name for conditions in all_of_them for name in conditions)
    values = {name: _distinct([conditions.get(name) for conditions in all_of_them]) for name in names}
    return [f"{name} ({' and '.join(found)})" for name, found in values.items() if len(found) > 1]


def _conditions(record: RunRecord) -> dict[str, Any]:
    own = {
        "device": record.device,
        "batch size": record.settings.get("batch_size"),
        "number of processes": record.num_processes,
        "dtype": record.dtype,
        "attention": record.attention,
        "engine": record.all_settings.get("engine"),
        "toolkit": record.harness,
    }
    return own | {f"version of {name}": version for name, version in record.versions.items()}


def _distinct(values: Sequence[object]) -> list[str]:
    return list(dict.fromkeys("unknown" if value is None else str(value) for value in values))


def _listed(values: Sequence[object]) -> str:
    return " and ".join(_distinct(values))
