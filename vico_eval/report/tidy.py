"""Every number of a table as one line: what it is, unrounded, over how many documents, from which runs."""

from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from vico_eval.report.layout import Table
from vico_eval.report.measurements import Measurements
from vico_eval.report.tables import (
    AVERAGE,
    by_row,
    compressed_tile_ratio,
    paired_difference,
    visual_token_share,
)

COLUMNS = ("row", "system", "benchmark", "metric", "value", "unit", "documents", "runs", "records")

# Column of the table's summary: metric and unit.
_SUMMARY = {
    "mean_score": ("mean_score", "points"),
    "retention": ("relative_retention", "%"),
    "retention_se": ("relative_retention_standard_error", "%"),
    "retention_spread": ("relative_retention_spread_over_runs", "%"),
    "tile_ratio": ("compressed_tile_ratio", "%"),
    "token_share": ("visual_token_share", "%"),
    "difference": ("difference", "points"),
    "difference_se": ("difference_standard_error", "points"),
}


def tidy_numbers(
    table: Table, measured: Measurements, systems: Mapping[str, str], places: Sequence[str], records: Sequence[str]
) -> pd.DataFrame:
    """The table's numbers, one a line, at full precision.

    Args:
        table: the numbers' rows and averages.
        measured: what it was built from.
        systems: each row's system.
        places: folder of each run, in the order of the runs' numbers.
        records: file of each run that says what produced its numbers.

    Returns:
        The columns `COLUMNS`; `runs` and `records` hold one path a run, joined by semicolons. Unknown values are NaN.
    """
    lines = list(_cell_lines(table, measured)) + list(_average_lines(table, measured))
    frame = pd.DataFrame(lines, columns=["row", "benchmark", "metric", "value", "unit", "documents", "numbers"])
    frame["system"] = frame["row"].map(systems)
    frame["runs"] = [";".join(places[number] for number in numbers) for numbers in frame["numbers"]]
    frame["records"] = [";".join(records[number] for number in numbers) for numbers in frame["numbers"]]
    return frame[list(COLUMNS)]


Line = tuple[str, str, str, float, str, int, tuple[int, ...]]


def _cell_lines(table: Table, measured: Measurements) -> Iterator[Line]:
    cells = measured.cells
    paired = paired_difference(measured.documents, table.baseline)
    frames = (
        ("score", "points", by_row(cells, "score"), False),
        ("compressed_tile_ratio", "%", compressed_tile_ratio(cells), False),
        ("visual_token_share", "%", visual_token_share(cells, table.baseline), True),
        ("difference", "points", paired.difference, True),
        ("difference_standard_error", "points", paired.standard_error, True),
    )
    for row in table.summary.index:
        for column in table.columns:
            own = cells[(cells["row"] == row) & (cells["benchmark"] == column)]
            if own.empty:
                continue
            for metric, unit, frame, compares in frames:
                numbers = _numbers(cells, row, table.baseline if compares else row, column)
                documents = int(own["documents"].iloc[0])
                yield str(row), column, metric, float(frame.loc[row, column]), unit, documents, numbers
            if (spread := table.score_spread.get(str(row), {}).get(column)) is not None:
                numbers = _numbers(cells, row, row, column)
                yield str(row), column, "score_spread_over_runs", spread, "points", documents, numbers


def _average_lines(table: Table, measured: Measurements) -> Iterator[Line]:
    cells = measured.cells
    for row, summary in table.summary.iterrows():
        for key, (metric, unit) in _SUMMARY.items():
            is_own = key in ("mean_score", "tile_ratio")
            numbers = _numbers(cells, str(row), str(row) if is_own else table.baseline, None)
            yield str(row), AVERAGE, metric, float(summary[key]), unit, int(summary["documents"]), numbers


def _numbers(cells: pd.DataFrame, row: str, other: str, benchmark: str | None) -> tuple[int, ...]:
    """Runs behind a number: the row's and those it is compared with."""
    own = cells[cells["row"].isin([row, other])]
    if benchmark is not None:
        own = own[own["benchmark"] == benchmark]
    return tuple(sorted(own["run"].unique()))
