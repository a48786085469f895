"""Assign each row of a table a visual-token budget. The best row is chosen among rows of the same budget.

A budget is the share of tokens that a row's runs were asked to keep. A row without one, such as a router's, gets its
measured share, or the requested budget of other rows if the two are close.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from vico_eval.budgets import asked_share, share_text
from vico_eval.report.scores.counted import CountedRun

NEAR = 0.05
"""Relative tolerance within which a row has a budget."""

FULL = 100.0


def parted_by_budget(runs: Sequence[CountedRun]) -> list[CountedRun]:
    """The runs, with those of one title split into rows such as `FastV (50%)` if they were run at several budgets.

    A ratio measured by another row's run (`ratio_from`) is not a requested budget.
    """
    shares = [_own_share(run) for run in runs]
    by_title: defaultdict[str, set[str | None]] = defaultdict(set)
    for run, share in zip(runs, shares, strict=True):
        by_title[run.row].add(None if share is None else share_text(share))
    titles = [
        run.row if share is None or len(by_title[run.row]) == 1 else f"{run.row} ({share_text(share)})"
        for run, share in zip(runs, shares, strict=True)
    ]
    return [replace(run, row=title) for run, title in zip(runs, titles, strict=True)]


def row_budgets(cells: pd.DataFrame, token_shares: pd.Series, baseline: str) -> dict[str, float]:
    """Each row's budget, in percent of the baseline's visual tokens; rows with equal numbers share a budget.

    Args:
        cells: the cells of the `Measurements`.
        token_shares: measured visual tokens in percent of the baseline's, by row title.
        baseline: the row that counts as 100%.

    Returns:
        Budgets by row title, in that order; NaN for a row with neither a requested budget nor a measured share.
    """
    asked = cells.groupby("row")["asked_share"].mean().reindex(token_shares.index).round(1)
    asked[baseline] = FULL
    groups = sorted(set(asked.dropna()))
    found = asked.to_dict()
    for row, share in token_shares[asked.isna()].dropna().sort_values(ascending=False).items():
        nearest = min(groups, key=lambda group: abs(share - group))
        if abs(share - nearest) >= NEAR * nearest:
            nearest = round(share, 1)
            groups.append(nearest)
        found[row] = nearest
    return {str(row): float(found[row]) for row in token_shares.index}


def by_budget(budgets: Mapping[str, float], baseline: str) -> list[str]:
    """Row titles: the baseline, then the others by descending budget, with unknown budgets last."""
    return sorted(budgets, key=lambda row: (row != baseline, -np.nan_to_num(budgets[row])))


def is_sweep(cells: pd.DataFrame) -> bool:
    """True if a method was run at several budgets."""
    return bool((cells["row"] != cells["method"]).any())


def missed_budgets(budgets: Mapping[str, float], cells: pd.DataFrame, token_shares: pd.Series) -> dict[str, float]:
    """Measured shares of visual tokens, in percent, of rows that missed their requested budget, by row title."""
    asked = set(cells.loc[cells["asked_share"].notna(), "row"])
    return {
        row: float(token_shares[row])
        for row, budget in budgets.items()
        if row in asked and abs(token_shares[row] - budget) >= NEAR * budget
    }


def methods_of(cells: pd.DataFrame) -> dict[str, str]:
    """Each row's title without its budget, by row title."""
    return dict(zip(cells["row"], cells["method"], strict=True))


def _own_share(run: CountedRun) -> float | None:
    if run.record.method_args.get("ratio_from") is not None:
        return None
    return asked_share(run.record.method, run.record.method_args)
