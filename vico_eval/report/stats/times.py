"""Times of a row's answers relative to the baseline: mean seconds per document, from the runs' journals.

Times are measured per batch, not per document, and the machine may have other load, so there is no standard error. Two
rows are compared only if they answered the same documents under the same conditions, and all documents have times.
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
"""In place of a benchmark's title: all documents that a row answered."""

MIB = 2.0**20

COLUMNS = (
    *("row", "benchmark", "documents", "timed_documents"),
    *("reading_seconds", "encoding_seconds", "own_seconds", "alone_seconds", "prefill_seconds", "decode_seconds"),
    *("own_relative", "alone_relative", "peak_mib"),
    *("rows_sharing", "device", "batch_size", "processes", "not_comparable"),
)


@dataclass(kw_only=True, slots=True)
class _Timed:
    """Times of a row's runs, on one benchmark or on all."""

    documents: Counter[str] = field(default_factory=Counter)
    """Number of documents over all runs, timed or not, by benchmark."""

    sums: TimeSums = field(default_factory=TimeSums)
    records: list[RunRecord] = field(default_factory=list)
    """Records of the runs with times."""

    def add(self, benchmark: str, documents: int, sums: TimeSums, record: RunRecord) -> None:
        self.documents[benchmark] += documents
        self.sums += sums
        if sums.documents:
            self.records.append(record)


def document_times(
    runs: Sequence[CountedRun], rows: Sequence[str], benchmarks: Sequence[str], baseline: str
) -> pd.DataFrame | None:
    """Times per document in each row, by benchmark and over all documents (`ALL`).

    A batch may contain long and short documents from several benchmarks, and its time is divided evenly among them.
    Sums over all documents are therefore right; those of a single benchmark are approximate.

    Returns:
        One line per row and benchmark run, with the columns `COLUMNS`: documents (over all of the row's runs),
        timed_documents (with a time for every answer; seconds are means over these), reading_seconds, encoding_seconds
        and own_seconds (as in `AnswerSeconds`, per document), alone_seconds (encoding plus own: the time of the row by
        itself, since reading runs in parallel to the model), prefill_seconds and decode_seconds (parts of own, if all
        timed documents have them), own_relative and alone_relative (percent of the baseline's), peak_mib (peak memory
        over batches during own, on CUDA), rows_sharing (number of rows that shared reading and encoding), device,
        batch_size and processes (of the runs with times), and not_comparable (reason for missing percentages). None if
        no row has times.
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
    """Times of one row's runs, by benchmark, with the total last."""
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
    """Reason that a row's times can't be compared with the baseline's, as text; empty if they can."""
    for name, timed in (("", own), (f"{baseline}: ", base)):
        known, documents = timed.sums.documents, timed.documents.total()
        if known < documents or not documents:
            return f"{name}{f'only {known} of {documents}' if known else 'no'} documents have times"
    if _shares(own) != _shares(base):
        return f"{baseline} answered different documents"
    if different := _different_conditions([*own.records, *base.records]):
        return f"this row and {baseline} differ in {'; '.join(different)}"
    return "" if base.sums.own > 0 else f"{baseline} took no time"


def _shares(timed: _Timed) -> dict[str, Fraction]:
    """Each benchmark's share of the documents, which does not depend on the number of runs."""
    total = timed.documents.total()
    return {name: Fraction(number, total) for name, number in timed.documents.items()}


def _different_conditions(records: Sequence[RunRecord]) -> list[str]:
    """Conditions that affect times and differ between runs, with their values."""
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
