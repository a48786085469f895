"""How many answers were cut off at the limit on new tokens, and how many end in a repetition loop, by benchmark.

A document counts once, however many of its answers end so. Accounts of older versions and of other programs' runs don't
say why an answer ended: then the number is unknown, never 0. Loops are found in the answers' texts, so every run has
their number.
"""

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from vico_eval.report.endings.loops import repeated_phrase
from vico_eval.runs.results import Document

ALL = "All documents"
"""In place of a benchmark's title: all that a row answered."""

COLUMNS = (
    *("row", "benchmark", "documents", "answered", "ends_known"),
    *("truncated", "truncated_percent", "looping", "looping_percent"),
)

COUNTS = ("documents", "answered", "ends_known", "truncated", "looping")
"""Of these columns, those that are sums over documents."""

NOTED = 1.0
"""Percent of a benchmark's documents from which on a table has a note: as much as a score may lose unnoticed, since a
row is said to retain the baseline's from 99% on."""


def count_endings(documents: Iterable[Document]) -> dict[str, float]:
    """How the answers to documents ended, as numbers of documents.

    Returns:
        answered (those with an answer), ends_known (those whose accounts say why every answer ended), truncated (of
        these, those with an answer that ended at the limit; NaN if there are none) and looping (those with an answer
        that ends in a loop).
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
    """How each row's answers ended, by benchmark and over all of them (`ALL`).

    Args:
        cells: of `vico_eval.report.stats.measurements`.
        rows: titles.
        benchmarks: titles.

    Returns:
        A line a row and benchmark that it was run on, with the columns `COLUMNS`: documents (their number, over all of
        the row's runs), answered, ends_known, truncated and looping as `count_endings` has them, truncated_percent (of
        those whose ends are known; NaN if there are none) and looping_percent (of those answered).
    """
    lines: list[dict[str, object]] = []
    for row in rows:
        own = cells[cells["row"] == row]
        known = [benchmark for benchmark in benchmarks if (own["benchmark"] == benchmark).any()]
        for benchmark in (*known, ALL):
            chosen = own[own["benchmark"].isin(known if benchmark == ALL else [benchmark])]
            # A run that doesn't say adds nothing to what others say.
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
    """What a table notes of truncated and of looping answers, a sentence a row and kind.

    Args:
        frame: of `endings`.
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
                notes.append(f"{row}: answers {words}: {', '.join(found)}.")
    return notes


def _share(line: Mapping[Hashable, Any], column: str) -> str:
    known = line["ends_known"]
    # Of a run that an older version began and this one ended, only some answers say it.
    some = f" of the {known:,.0f} answers that say it" if column.startswith("truncated") else ""
    some = some if known < line["answered"] else ""
    return f"{line[column]:.1f}%{some} in {line['benchmark']}"


def _percent(part: float, whole: float) -> float:
    return 100 * part / whole if whole else math.nan
