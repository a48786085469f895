"""Which budget of visual tokens each row of a table has: rows of one budget are what may be compared for the best.

A budget is what a row's runs were asked to leave. A row that was asked nothing, as of a router, has what it measured,
and is of an asked budget that this comes near to.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from vico_eval.budgets import asked_share, share_text
from vico_eval.report.scores.counted import CountedRun

NEAR = 0.05
"""A row is of a budget if it differs from it by less than this share of it."""

FULL = 100.0


def parted_by_budget(runs: Sequence[CountedRun]) -> list[CountedRun]:
    """The runs, those of one title that were asked to leave several shares as rows of their own: `FastV (50%)`.

    What another row's run measured (`ratio_from`) is no share that was asked for.
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
    """Each row's budget, in percent of the baseline's visual tokens; rows of the same number have the same budget.

    Args:
        cells: of the `Measurements`.
        token_shares: by row title, percent of the baseline's visual tokens that it measured.
        baseline: the row that counts as 100%.

    Returns:
        By row title, in its order; NaN where a row was asked nothing and doesn't say what it used.
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
    """Row titles, the baseline's first and then by budget, the largest first and unknown ones last."""
    return sorted(budgets, key=lambda row: (row != baseline, -np.nan_to_num(budgets[row])))


def is_sweep(cells: pd.DataFrame) -> bool:
    """Whether a method was run at several budgets."""
    return bool((cells["row"] != cells["method"]).any())


def missed_budgets(budgets: Mapping[str, float], cells: pd.DataFrame, token_shares: pd.Series) -> dict[str, float]:
    """What rows used that were asked for another share of the visual tokens, in percent, by row title."""
    asked = set(cells.loc[cells["asked_share"].notna(), "row"])
    return {
        row: float(token_shares[row])
        for row, budget in budgets.items()
        if row in asked and abs(token_shares[row] - budget) >= NEAR * budget
    }


def methods_of(cells: pd.DataFrame) -> dict[str, str]:
    """Each row's title less its budget, by row title."""
    return dict(zip(cells["row"], cells["method"], strict=True))


def _own_share(run: CountedRun) -> float | None:
    if run.record.method_args.get("ratio_from") is not None:
        return None
    return asked_share(run.record.method, run.record.method_args)
