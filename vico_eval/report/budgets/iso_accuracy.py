"""Iso-accuracy budgets: the visual-token budget at which a method's retention falls below a mark."""

import numpy as np
import pandas as pd

from vico_eval.report.paired.draws import Draws
from vico_eval.report.stats.uncertainty import LEVEL, drawn_retention, quantile
from vico_eval.report.tables.table import Table

MARKS = (99.0, 95.0)
"""Retention marks, in percent of the baseline's score."""

COLUMNS = ("method", "retention", "budgets", "least_tokens", "tokens", "low", "high")


def swept_rows(table: Table) -> dict[str, list[str]]:
    """Rows with known tokens and retention, by descending tokens, for each method that was run at several budgets."""
    known = table.summary[["token_share", "retention"]].dropna().sort_values("token_share", ascending=False).index
    rows: dict[str, list[str]] = {}
    for row in known:
        if (method := table.methods.get(row, row)) != row:
            rows.setdefault(method, []).append(row)
    return {method: rows[method] for method in dict.fromkeys(table.methods.values()) if len(rows.get(method, [])) > 1}


def iso_accuracy(table: Table, draws: Draws) -> pd.DataFrame | None:
    """The budgets at which each method's retention falls below the marks, by linear interpolation between budgets.

    A line starts at the baseline, at 100% of both. If retention rises again, the first crossing counts. Visual tokens
    are the measured ones, in percent of the baseline's; they are not resampled.

    Returns:
        One line per method and mark with the columns `COLUMNS`: retention (the mark), budgets (number of budgets),
        least_tokens (at the smallest budget), tokens (the interpolated budget; NaN if retention stays above the mark),
        low and high (95% bootstrap interval over documents; low is 0 if it is below the smallest budget, and both are
        NaN without scores by document). None if no method was run at several budgets.
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
                # The ends swap: higher retention means that fewer tokens suffice.
                line["low"] = quantile(falls_below(tokens, _from_all(drawn.high), mark), LEVEL / 2)
                line["high"] = quantile(falls_below(tokens, _from_all(drawn.low), mark), 1 - LEVEL / 2)
            lines.append(line)
    return pd.DataFrame(lines, columns=list(COLUMNS))


def falls_below(tokens: np.ndarray, retention: np.ndarray, mark: float) -> np.ndarray:
    """Visual tokens at which piecewise linear curves first fall below a mark, [lines]; 0 for curves that don't.

    Args:
        tokens: [points], descending.
        retention: [lines, points]; the first point is at or above the mark.
        mark: the retention mark, in percent.
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
    """The result of `iso_accuracy` as text, one sentence per method."""
    if budgets is None:
        return ()
    sentences = [
        f"{method} retains {' and '.join(_said(line) for _, line in own.iterrows())}."
        for method, own in budgets.groupby("method", sort=False)
    ]
    note = "Budgets at which retention falls below a mark are interpolated between the budgets run, with 95% intervals."
    return (*sentences, note)


def _said(line: pd.Series) -> str:
    least = f"{line['least_tokens']:.1f}%"
    is_kept = np.isnan(line["tokens"])
    tokens = f"down to {least}" if is_kept else f"with {line['tokens']:.1f}%"
    ends = [f"below {least}" if end < line["least_tokens"] else f"{end:.1f}%" for end in line[["low", "high"]]]
    interval = "" if np.isnan(line["low"]) else f" ({' to '.join(dict.fromkeys(ends))})"
    least_run = ", the smallest budget run" if is_kept else ""
    return f"{line['retention']:.0f}% {tokens} of the visual tokens{least_run}{interval}"


def _from_all(drawn: np.ndarray) -> np.ndarray:
    return np.column_stack([np.full(len(drawn), 100.0), drawn])
