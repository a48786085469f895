"""A table's numbers in tidy form: one line per number, unrounded, with its documents and runs."""

import math
from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from vico_eval.report.stats.measurements import Measurements
from vico_eval.report.stats.retention import (
    AVERAGE,
    by_row,
    compressed_tile_ratio,
    paired_difference,
    runs_by_cell,
    visual_token_share,
)
from vico_eval.report.tables.table import Table

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
    """The table's numbers, one per line, at full precision.

    Args:
        table: the table with its rows and averages.
        measured: the measurements behind it.
        systems: each row's system.
        places: folder of each run, by run number.
        records: record file of each run, by run number.

    Returns:
        The columns `COLUMNS`; `runs` and `records` have one path per run, joined by semicolons. Unknown values are NaN.
        If the table includes a paper's numbers, they follow, and an additional column `source` is `measured`,
        `published` (without documents and runs; `records` is the file of the numbers), or the difference between the
        two.
    """
    lines = list(_cell_lines(table, measured)) + list(_average_lines(table, measured))
    frame = pd.DataFrame(lines, columns=["row", "benchmark", "metric", "value", "unit", "documents", "numbers"])
    frame["system"] = frame["row"].map(systems)
    frame["runs"] = [";".join(places[number] for number in numbers) for numbers in frame["numbers"]]
    frame["records"] = [";".join(records[number] for number in numbers) for numbers in frame["numbers"]]
    if not table.published:
        return frame[list(COLUMNS)]
    published = pd.DataFrame(_published_lines(table, systems), columns=[*COLUMNS, "source"])
    return pd.concat([frame[list(COLUMNS)].assign(source="measured").astype(object), published.astype(object)])


Line = tuple[str, str, str, float, str, int, tuple[int, ...]]


def _cell_lines(table: Table, measured: Measurements) -> Iterator[Line]:
    cells = measured.cells
    paired = paired_difference(measured.values, table.baseline)
    frames = (
        ("score", "points", by_row(cells, "score"), False),
        ("compressed_tile_ratio", "%", compressed_tile_ratio(cells), False),
        ("visual_token_share", "%", visual_token_share(cells, table.baseline), True),
        ("difference", "points", paired.difference, True),
        ("difference_standard_error", "points", paired.standard_error, True),
    )
    runs = runs_by_cell(cells)
    num_documents = cells.drop_duplicates(["row", "benchmark"]).set_index(["row", "benchmark"])["documents"].to_dict()
    for row in table.summary.index:
        for column in table.columns:
            own, base = runs.get((row, column), []), runs.get((table.baseline, column), [])
            if not own:
                continue
            documents = int(num_documents[row, column])
            for metric, unit, frame, compares in frames:
                numbers = tuple(sorted({*own, *base} if compares else own))
                yield str(row), column, metric, float(frame.loc[row, column]), unit, documents, numbers
            if (spread := table.score_spread.get(str(row), {}).get(column)) is not None:
                yield str(row), column, "score_spread_over_runs", spread, "points", documents, tuple(sorted(own))


def _average_lines(table: Table, measured: Measurements) -> Iterator[Line]:
    cells = measured.cells
    runs = {row: set(cells.loc[cells["row"] == row, "run"]) for row in table.summary.index}
    for row, summary in table.summary.iterrows():
        for key, (metric, unit) in _SUMMARY.items():
            is_own = key in ("mean_score", "tile_ratio")
            numbers = tuple(sorted(runs[row] | (set() if is_own else runs[table.baseline])))
            yield str(row), AVERAGE, metric, float(summary[key]), unit, int(summary["documents"]), numbers


def _published_lines(table: Table, systems: Mapping[str, str]) -> Iterator[tuple[object, ...]]:
    """A paper's numbers, and the measured mean score minus the paper's; missing numbers are left out."""
    for row in table.published:
        for column, value in row.values.items():
            if math.isnan(value):
                continue
            metric = "compressed_tile_ratio" if row.kind == "ratio" else "score"
            if column == AVERAGE and row.kind == "score":
                metric = "relative_retention"
            unit = "points" if metric == "score" else "%"
            what = (row.title, systems[row.title], column, metric, value, unit)
            yield (*what, "", "", table.published_place, "published")
        if not math.isnan(row.difference):
            what = (row.title, systems[row.title], AVERAGE, "mean_score_difference", row.difference, "points")
            yield (*what, "", "", table.published_place, "measured - published")
