"""Count truncated answers and answers that end in a repetition loop, by benchmark.

A document counts once, however many of its answers are affected. Accounts from older versions and from other programs
don't record why an answer ended; then the number of truncated answers is unknown, never 0. Loops are detected in the
answers' text, so their number is always known.
"""

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from vico_eval.report.endings.loops import repeated_phrase
from vico_eval.runs.results import Document

ALL = "All documents"
"""In place of a benchmark's title: all documents that a row answered."""

COLUMNS = (
    *("row", "benchmark", "documents", "answered", "ends_known"),
    *("truncated", "truncated_percent", "looping", "looping_percent"),
)

COUNTS = ("documents", "answered", "ends_known", "truncated", "looping")
"""The columns that are sums over documents."""

NOTED = 1.0
"""Percentage of a benchmark's documents above which the table gets a note. It equals the loss that a verdict of 99%
retention tolerates."""


def count_endings(documents: Iterable[Document]) -> dict[str, float]:
    """Count documents by how their answers ended.

    Returns:
        answered (documents with an answer), ends_known (documents whose accounts record why every answer ended),
        truncated (of those, documents with an answer cut off at the limit; NaN if ends_known is 0) and looping
        (documents with an answer that ends in a loop).
    """
    counts = {"answered": 0.0, "ends_known": 0.0, "truncated": 0.0, "looping": 0.0}
    for document in documents:
        if document.said is None:
            continue
        counts["answered"] += 1
        counts["looping"] += any(repeated_phrase(text) is not None for text in document.said)
        ends = [account.finish for account in document.account or ()]
        if ends and None not in ends:
            counts["ends_known"] += 1
            counts["truncated"] += "length" in ends
    return counts | ({} if counts["ends_known"] else {"truncated": math.nan})


def endings(cells: pd.DataFrame, rows: Sequence[str], benchmarks: Sequence[str]) -> pd.DataFrame:
    """Count how each row's answers ended, by benchmark and over all benchmarks (`ALL`).

    Args:
        cells: cells of the `Measurements`.
        rows: row titles.
        benchmarks: benchmark titles.

    Returns:
        One line per row and benchmark run, with the columns `COLUMNS`: documents (over all of the row's runs),
        answered, ends_known, truncated and looping as in `count_endings`, truncated_percent (of ends_known; NaN if that
        is 0) and looping_percent (of answered).
    """
    lines: list[dict[str, object]] = []
    for row in rows:
        own = cells[cells["row"] == row]
        known = [benchmark for benchmark in benchmarks if (own["benchmark"] == benchmark).any()]
        for benchmark in (*known, ALL):
            chosen = own[own["benchmark"].isin(known if benchmark == ALL else [benchmark])]
            # Runs without the information don't affect the sums of the others.
            sums = {name: float(chosen[name].sum(min_count=1)) for name in COUNTS}
            lines.append(
                {
                    "row": row,
                    "benchmark": benchmark,
                    **sums,
                    "truncated_percent": _percent(sums["truncated"], sums["ends_known"]),
                    "looping_percent": _percent(sums["looping"], sums["answered"]),
                }
            )
    return pd.DataFrame(lines, columns=list(COLUMNS))


def ending_notes(frame: pd.DataFrame) -> list[str]:
    """Notes on truncated and looping answers, one sentence per row and kind.

    Args:
        frame: result of `endings`.
    """
    kinds = {
        "truncated_percent": "cut off at the limit on new tokens",
        "looping_percent": "that end in a repetition loop",
    }
    own = frame[frame["benchmark"] != ALL]
    notes = []
    for row, lines in own.groupby("row", sort=False):
        for column, words in kinds.items():
            many = lines[lines[column] > NOTED]
            found = [_share(line, column) for line in many.to_dict("records")]
            if found:
                notes.append(f"{row}, answers {words}: {', '.join(found)}.")
    return notes


def _share(line: Mapping[Hashable, Any], column: str) -> str:
    known = line["ends_known"]
    # A run that an older version started and this one finished has the information for only some answers.
    some = f" of the {known:,.0f} answers with a known end" if column.startswith("truncated") else ""
    some = some if known < line["answered"] else ""
    return f"{line[column]:.1f}%{some} in {line['benchmark']}"


def _percent(part: float, whole: float) -> float:
    return 100 * part / whole if whole else math.nan
