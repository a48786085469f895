"""The page's table of times: each row's time by itself, and the number of rows that shared the encoding."""

import math
from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from vico_eval.report.page.tables.cells import PageCell, PageRow
from vico_eval.report.stats.times import ALL
from vico_eval.report.tables.grid import DASH
from vico_eval.report.tables.writers import percent

TIME_HEADS = (
    *("Documents", "Reading", "Encoding", "Own", "Alone", "Own, relative", "Alone, relative"),
    *("Rows", "Device", "Batch", "Processes"),
)
"""Titles of the columns after the method's."""


def time_rows(times: pd.DataFrame, baseline: str) -> list[PageRow]:
    """One line per row, over all of its documents.

    Args:
        times: result of `vico_eval.report.stats.times.document_times`.
        baseline: title of the row that the others are relative to.
    """
    return [
        PageRow(
            title=line["row"],
            cells=tuple(PageCell(text=text, sort=None) for text in _texts(line)),
            is_baseline=line["row"] == baseline,
        )
        for line in _whole(times)
    ]


def time_notes(times: pd.DataFrame, baseline: str) -> list[str]:
    """Notes on the numbers, and the reasons for missing percentages."""
    notes = [
        "Mean seconds per document. Alone is encoding plus own, the time of the row by itself. In a pass of several "
        "rows, reading and encoding were done once for all of them; Rows is their number. Reading runs in parallel "
        "to the model, so Alone does not include it.",
        f"Percentages are relative to {baseline}. The time of a batch is divided evenly among its answers. Times vary "
        "between runs and with the machine's load, so small differences are not meaningful.",
    ]
    reasons = {line["row"]: line["not_comparable"] for line in _whole(times)}
    return notes + [f"{row} has no percentage: {reason}." for row, reason in reasons.items() if reason]


def _whole(times: pd.DataFrame) -> list[dict[Hashable, Any]]:
    lines: list[dict[Hashable, Any]] = times[times["benchmark"] == ALL].to_dict("records")
    return lines


def _texts(line: Mapping[Hashable, Any]) -> list[str]:
    timed, documents = line["timed_documents"], line["documents"]
    seconds = [line[f"{name}_seconds"] for name in ("reading", "encoding", "own", "alone")]
    words = [line[name] for name in ("rows_sharing", "device", "batch_size", "processes")]
    return [
        f"{timed:,}" if timed == documents else f"{timed:,} of {documents:,}",
        *map(_seconds, seconds),
        *(percent(line[name], digits=1) for name in ("own_relative", "alone_relative")),
        *(word if timed else DASH for word in words),
    ]


def _seconds(value: float) -> str:
    """Seconds with three significant digits, or all digits before the decimal point."""
    if math.isnan(value):
        return DASH
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
