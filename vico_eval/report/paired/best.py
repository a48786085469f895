"""Cells to set in bold: within a budget, the highest of a column and all that don't differ significantly from it."""

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

from vico_eval.report.paired.draws import Draws
from vico_eval.report.paired.equality import equality_test, holm
from vico_eval.report.paired.pairs import difference_of
from vico_eval.report.stats.retention import AVERAGE
from vico_eval.report.tables.table import AVERAGE_DIGITS, Table


def best_of(table: Table, draws: Draws, alpha: float) -> dict[str, frozenset[str]]:
    """The titles of the best rows for each column, including `Avg.`.

    Only rows that compete and save tokens in the column count. Within a budget, each is tested against the highest on
    the same documents, two-sided, with Holm's correction over these tests. Rows that print the same number as the
    highest are also best; if documents can't be compared, no other rows are.

    Args:
        table: the table to mark.
        draws: the bootstrap draws of its rows.
        alpha: level of the tests.

    Returns:
        Titles by column, without those of budgets in which fewer than two rows compete.
    """
    rows = [row for row in table.rows if row.kind == "score" and row.competes]
    best = {}
    for column in (*table.columns, AVERAGE):
        digits = AVERAGE_DIGITS if column == AVERAGE else table.digits[column]
        groups: dict[float, dict[str, float]] = {}
        for row in rows:
            budget = table.budgets[row.title]
            if column not in row.saves_nothing and not math.isnan(row.values[column]) and not math.isnan(budget):
                groups.setdefault(budget, {})[row.title] = row.values[column]
        together = [_together(draws, scores, column, digits, alpha) for scores in groups.values() if len(scores) > 1]
        best[column] = frozenset().union(*together)
    return best


def _together(draws: Draws, scores: Mapping[str, float], column: str, digits: int, alpha: float) -> frozenset[str]:
    """The highest of these rows and those that don't differ significantly from it."""
    first = max(scores, key=lambda row: scores[row])
    others = [row for row in scores if row != first]
    p_values = holm(pd.Series([_p_equal(draws, row, first, column) for row in others], index=others, dtype=float))
    printed = round(scores[first], digits)
    best = [row for row in others if p_values[row] >= alpha or round(scores[row], digits) == printed]
    return frozenset([first, *best])


def _p_equal(draws: Draws, row: str, other: str, column: str) -> float:
    """p-value of the test of no difference; NaN if the rows' documents can't be compared."""
    own, second = draws.place(row), draws.place(other)
    compared = draws.compared(own, second)
    if column == AVERAGE:
        return difference_of(draws, own, second, compared).p if len(compared) == len(draws.columns) else np.nan
    place = next(place for place, known in enumerate(draws.columns) if known.benchmark == column)
    return equality_test(draws.columns[place], own, second).p_equal if place in compared else np.nan
