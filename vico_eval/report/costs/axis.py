"""The cost on the horizontal axis of the retention figure."""

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from vico_eval.errors import unknown_name
from vico_eval.report.costs.frame import ASKED
from vico_eval.report.stats.times import ALL

TOKENS = "tokens"
"""Axis name for visual tokens, which every table has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CostAxis:
    """A cost to plot in place of visual tokens."""

    label: str
    shares: Mapping[str, float]
    """Cost in percent of the baseline's, by row title; NaN or missing if unknown or not comparable."""

    slower: frozenset[str]
    """Rows that take more time than the baseline despite fewer operations."""


def check_axis(name: str) -> None:
    """Check that `name` is an axis.

    Raises:
        ConfigError: the name is unknown.
    """
    if name not in (TOKENS, *ASKED):
        raise unknown_name("cost", name, (TOKENS, *ASKED), where="--pareto")


def cost_axis(costs: pd.DataFrame | None, name: str) -> CostAxis | None:
    """The axis with this name; None for visual tokens.

    Args:
        costs: result of `document_costs`.
        name: `tokens`, or one of `ASKED`.
    """
    if name == TOKENS:
        return None
    asked = ASKED[name]
    if costs is None:
        return CostAxis(label=asked.axis, shares={}, slower=frozenset())
    total = costs[costs["benchmark"] == ALL].set_index("row")
    return CostAxis(
        label=asked.axis,
        shares=total[f"{asked.cost}_relative"].to_dict(),
        slower=frozenset(total.index[total["slower"].eq(True)]),
    )
