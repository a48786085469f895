"""Data for the page's plot: retention over visual tokens or a cost, and the rows' styles."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from vico_eval.report.costs.axis import TOKENS
from vico_eval.report.costs.frame import ASKED, COSTS
from vico_eval.report.figures.style import COLOURS, looks
from vico_eval.report.page.scripts import known
from vico_eval.report.stats.retention import AVERAGE, pareto_front
from vico_eval.report.stats.times import ALL
from vico_eval.report.tables.table import Table

Shares = Mapping[str, Mapping[tuple[str, str], float]]
"""Costs in percent of the baseline's, by axis, then by row and column."""


@dataclass(frozen=True, slots=True)
class _Point:
    """A row's point, in percent of the baseline."""

    row: int
    saved: float
    retention: float


def row_styles(table: Table) -> list[dict[str, Any]]:
    """Title, colour (an index into `COLOURS`; None for the baseline), marker and number of runs of each row."""
    drawn = looks(table)
    return [
        {
            "title": str(title),
            "hue": None if title == table.baseline else COLOURS.index(drawn[str(title)].colour),
            "marker": drawn[str(title)].marker,
            "runs": int(runs),
        }
        for title, runs in table.summary["runs"].items()
    ]


def axes(shares: Shares) -> list[dict[str, str]]:
    """`name` and `title` of each possible horizontal axis."""
    titles = {TOKENS: "Visual tokens"} | {asked.cost: asked.title for asked in ASKED.values()}
    return [{"name": name, "title": titles[name]} for name in shares]


def shares_of(numbers: pd.DataFrame, costs: pd.DataFrame | None) -> dict[str, dict[tuple[str, str], float]]:
    """Each row's visual tokens and known costs, in percent of the baseline's.

    Args:
        numbers: result of `vico_eval.report.tables.numbers.tidy_numbers`.
        costs: result of `vico_eval.report.costs.frame.document_costs`.
    """
    shares = {TOKENS: _by_row_and_column(numbers, "visual_token_share")}
    if costs is not None:
        columns = costs["benchmark"].replace(ALL, AVERAGE)
        keys = list(zip(costs["row"], columns, strict=True))
        for cost in COSTS:
            shares[cost] = dict(zip(keys, costs[f"{cost}_relative"], strict=True))
    return {
        name: kept for name, own in shares.items() if (kept := {key: own[key] for key in own if _is_finite(own[key])})
    }


def plots(table: Table, numbers: pd.DataFrame, uncertainty: pd.DataFrame, shares: Shares) -> list[dict[str, Any]]:
    """Plots of retention for the average, and for each benchmark with retention and a cost on some axis.

    Args:
        table: the report's table.
        numbers: result of `vico_eval.report.tables.numbers.tidy_numbers`.
        uncertainty: result of `vico_eval.report.stats.uncertainty.compare_with_baseline`.
        shares: result of `shares_of`.

    Returns:
        For each plot its `column`, `points` (row, retention, low and high of the 95% interval, ratio of compressed
        tiles, in percent, None for unknown; and shares of the baseline's cost by axis) and `fronts` (rows of the Pareto
        front by axis, in order of saving).
    """
    titles = [str(title) for title in table.summary.index]
    ratios = _by_row_and_column(numbers, "compressed_tile_ratio")
    intervals = uncertainty.set_index(["row", "benchmark"])
    drawn = []
    retentions = {AVERAGE: table.summary["retention"].to_dict()}
    retentions |= {column: table.retention(column) for column in table.columns}
    for column, retention in retentions.items():
        points = []
        for number, title in enumerate(titles):
            across = {name: known(own[title, column]) for name, own in shares.items() if (title, column) in own}
            if across and _is_finite(retention[title]):
                point = {"row": number, "retention": known(retention[title]), "shares": across}
                interval = _interval(title, column, intervals, table)
                points.append(point | interval | {"ratio": known(ratios.get((title, column), math.nan))})
        if points:
            fronts = {name: _front(points, name) for name in shares}
            drawn.append({"column": column, "points": points, "fronts": fronts})
    return drawn


def _front(points: Sequence[Mapping[str, Any]], axis: str) -> list[int]:
    own = [point for point in points if axis in point["shares"]]
    front = pareto_front([_Point(point["row"], 100 - point["shares"][axis], point["retention"]) for point in own])
    return [point.row for point in front]


def _interval(title: str, column: str, intervals: pd.DataFrame, table: Table) -> dict[str, float | None]:
    if title == table.baseline:
        return {"low": None, "high": None}
    line = intervals.loc[(title, column)]
    # With benchmarks left out, the interval belongs to a different average.
    if line["left_out"]:
        return {"low": None, "high": None}
    return {"low": known(line["low"]), "high": known(line["high"])}


def _by_row_and_column(numbers: pd.DataFrame, metric: str) -> dict[tuple[str, str], float]:
    own = numbers[numbers["metric"] == metric]
    if "source" in own:
        own = own[own["source"] == "measured"]
    keys: Sequence[tuple[str, str]] = list(zip(own["row"], own["benchmark"], strict=True))
    return dict(zip(keys, own["value"], strict=True))


def _is_finite(value: float) -> bool:
    return math.isfinite(float(value))
