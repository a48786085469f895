"""The cost over which the picture of retention is drawn."""

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from vico_eval.errors import unknown_name
from vico_eval.report.costs.frame import ASKED
from vico_eval.report.stats.times import ALL

TOKENS = "tokens"
"""Asks for the visual tokens, which a table has by itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CostAxis:
    """A cost in place of the visual tokens."""

    label: str
    shares: Mapping[str, float]
    """By row title, percent of the baseline's; NaN or missing where it isn't known or can't be compared."""

    slower: frozenset[str]
    """Rows that take more time than the baseline although they need fewer operations."""


def check_axis(name: str) -> None:
    """Raises ConfigError for a cost that there is not."""
    if name not in (TOKENS, *ASKED):
        raise unknown_name("cost", name, (TOKENS, *ASKED), where="--pareto")


def cost_axis(costs: pd.DataFrame | None, name: str) -> CostAxis | None:
    """The axis that is asked for by name; None for the visual tokens.

    Args:
        costs: of `document_costs`.
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
