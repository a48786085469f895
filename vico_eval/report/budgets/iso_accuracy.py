"""The iso-accuracy budget: how few visual tokens a method can be left with until its retention falls below a mark."""

import numpy as np
import pandas as pd

from vico_eval.report.paired.draws import Draws
from vico_eval.report.stats.uncertainty import LEVEL, drawn_retention, quantile
from vico_eval.report.tables.table import Table

MARKS = (99.0, 95.0)
"""Percent of the baseline's score."""

COLUMNS = ("method", "retention", "budgets", "least_tokens", "tokens", "low", "high")


def swept_rows(table: Table) -> dict[str, list[str]]:
    """By method that was run at several budgets, its rows with known tokens and retention, the most tokens first."""
    known = table.summary[["token_share", "retention"]].dropna().sort_values("token_share", ascending=False).index
    rows: dict[str, list[str]] = {}
    for row in known:
        if (method := table.methods.get(row, row)) != row:
            rows.setdefault(method, []).append(row)
    return {method: rows[method] for method in dict.fromkeys(table.methods.values()) if len(rows.get(method, [])) > 1}


def iso_accuracy(table: Table, draws: Draws) -> pd.DataFrame | None:
    """Where each method's retention falls below the marks, on straight lines between the budgets that were run.

    A line begins at the baseline, which keeps all of both. Of a method whose retention rises again the first fall
    counts. Visual tokens are those that were used, in percent of the baseline's; they are not drawn anew.

    Returns:
        A line a method and mark with the columns `COLUMNS`: retention (the mark), budgets (how many were run),
        least_tokens (used at the smallest one), tokens (the budget; NaN where retention is above the mark at every
        one), low and high (95% interval over the choice of documents; low is 0 where it lies below the smallest
        budget, and both are NaN without scores by document). None where no method was run at several budgets.
    """
    methods = swept_rows(table)
    if not methods:
        return None
    lines = []
    for method, rows in methods.items():
        own = table.summary.loc[rows]
        tokens = np.array([100.0, *own["token_share"]])
        seen = np.array([100.0, *own["retention"]])[None]
        drawn = drawn_retention(draws, rows, table.baseline)
        is_drawn = not any(np.isnan(end).any() for end in drawn)
        for mark in MARKS:
            place = float(falls_below(tokens, seen, mark)[0])
            line = {
                "method": method,
                "retention": mark,
                "budgets": len(rows),
                "least_tokens": tokens[-1],
                "tokens": place if place > 0 else np.nan,
            }
            if is_drawn:
                # The more is kept, the fewer tokens do.
                line["low"] = quantile(falls_below(tokens, _from_all(drawn.high), mark), LEVEL / 2)
                line["high"] = quantile(falls_below(tokens, _from_all(drawn.low), mark), 1 - LEVEL / 2)
            lines.append(line)
    return pd.DataFrame(lines, columns=list(COLUMNS))


def falls_below(tokens: np.ndarray, retention: np.ndarray, mark: float) -> np.ndarray:
    """Visual tokens at which lines between points fall below a mark for the first time, [lines]; 0 where they don't.

    Args:
        tokens: [points], descending.
        retention: [lines, points]; that of the first is at least the mark.
        mark: of the retention.
    """
    below = retention < mark
    after = below.argmax(axis=1)
    every = np.arange(len(retention))
    before = np.maximum(after - 1, 0)
    upper, lower = retention[every, before], retention[every, after]
    share = np.divide(mark - lower, upper - lower, out=np.zeros(len(retention)), where=upper > lower)
    places: np.ndarray = tokens[after] + share * (tokens[before] - tokens[after])
    return np.where(below.any(axis=1), places, 0.0)


def iso_sentences(budgets: pd.DataFrame | None) -> tuple[str, ...]:
    """What `iso_accuracy` found, a sentence a method."""
    if budgets is None:
        return ()
    sentences = [
        f"{method} keeps {' and '.join(_said(line) for _, line in own.iterrows())}."
        for method, own in budgets.groupby("method", sort=False)
    ]
    note = "Budgets at which retention falls below a mark: interpolated between those that were run, 95% intervals."
    return (*sentences, note)


def _said(line: pd.Series) -> str:
    least = f"{line['least_tokens']:.1f}%"
    is_kept = np.isnan(line["tokens"])
    tokens = f"down to {least}" if is_kept else f"with {line['tokens']:.1f}%"
    ends = [f"below {least}" if end < line["least_tokens"] else f"{end:.1f}%" for end in line[["low", "high"]]]
    interval = "" if np.isnan(line["low"]) else f" ({' to '.join(dict.fromkeys(ends))})"
    least_run = ", the least that was run" if is_kept else ""
    return f"{line['retention']:.0f}% {tokens} of the visual tokens{least_run}{interval}"


def _from_all(drawn: np.ndarray) -> np.ndarray:
    return np.column_stack([np.full(len(drawn), 100.0), drawn])
