"""The papers' numbers as printed, row by row, and averages recomputed from them.

Source: `results/published`, with one printed number per line. `vico_eval.report.papers.layout` has the tables' layout.
"""

import csv
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Literal

import pandas as pd

from vico_eval.errors import ReportError
from vico_eval.report.papers.layout import Layout, Quantity, paper_folder
from vico_eval.report.stats.retention import AVERAGE, relative_retention, with_average


@dataclass(frozen=True, kw_only=True, slots=True)
class PrintedNumber:
    """A line of a CSV under `results/published`; all fields are text."""

    table: str
    model: str
    variant: str
    benchmark: str
    setting: str
    metric: str
    value: str
    unit: str
    note: str

    @property
    def kind(self) -> Literal["score", "ratio"]:
        """The table line of the number: a row's scores, or its ratio of compressed tiles."""
        return "ratio" if self.metric == "compressed_ratio" else "score"


@dataclass(frozen=True, kw_only=True, slots=True)
class PrintedRow:
    """One row of a paper's table."""

    name: str
    """Unique name of the row: model, variant and, if rows differ in them, settings."""

    kind: Literal["score", "ratio"]
    fields: Mapping[str, str]
    """Fields for the row's titles: `model`, `variant`, `remark`, and those in text such as `LLM=...; PT/IT=...`."""

    numbers: Mapping[str, PrintedNumber]
    """Numbers by the quantity's key; `Avg.` is the printed average."""


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class PublishedTable:
    """A paper's table: rows in the paper's order, each followed by its ratios."""

    layout: Layout
    rows: tuple[PrintedRow, ...]


def published_csv(folder: Path, paper: str, number: int) -> Path:
    """The file of a paper's table, such as `published_csv(published_dir(), "vico", 3)`."""
    return paper_folder(folder, paper) / f"table{number}.csv"


def read_numbers(path: Path) -> list[PrintedNumber]:
    """Read a published table's numbers, in the file's order.

    Raises:
        ReportError: the file can't be read, has other columns, or has a value that is not a number.
    """
    expected = [field.name for field in fields(PrintedNumber)]
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *lines = list(csv.reader(file)) or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ReportError(f"{path} can't be read as a published table: {error}.") from error
    if header != expected:
        raise ReportError(f"{path} has the columns {', '.join(header)}; expected {', '.join(expected)}.")
    numbers = []
    for place, line in enumerate(lines, start=2):
        if len(line) != len(expected):
            raise ReportError(f"{path}, line {place} has {len(line)} cells; expected {len(expected)}.")
        numbers.append(PrintedNumber(**dict(zip(expected, line, strict=True))))
        _check_number(numbers[-1], f"{path}, line {place}")
    return numbers


def read_table(folder: Path, layout: Layout) -> PublishedTable:
    """Read a paper's table according to its layout.

    Args:
        folder: the papers' numbers, one folder per paper.
        layout: the table's layout.

    Raises:
        ReportError: the CSV is malformed, has a number without a column in the layout, or repeats a number.
    """
    path = published_csv(folder, layout.paper, layout.number)
    quantities: dict[tuple[str, str], dict[str, PrintedNumber]] = {}
    titles: dict[str, Mapping[str, str]] = {}
    for number in read_numbers(path):
        name = _row_name(number, layout)
        titles.setdefault(name, _row_fields(number, layout))
        key = _quantity(number, layout, path).key
        row = quantities.setdefault((name, number.kind), {})
        if key in row:
            raise ReportError(f"{path} has {key} of {name} twice: {row[key].value} and {number.value}.")
        row[key] = number
    rows = [
        PrintedRow(name=name, kind=kind, fields=titles[name], numbers=quantities[name, kind])
        for name in titles
        for kind in ("score", "ratio")
        if (name, kind) in quantities
    ]
    return PublishedTable(layout=layout, rows=tuple(rows))


def score(number: PrintedNumber) -> float:
    """The score on 0-100; MME, which is on 0-2800, is divided by 28."""
    is_mme = number.benchmark == "MME" and number.kind == "score"
    return float(number.value) / 28 if is_mme else float(number.value)


@cache  # used by the CSV, the layout and the printed table
def own_averages(table: PublishedTable) -> Mapping[tuple[str, str], float]:
    """Averages recomputed from the table's own cells, by row name and kind; NaN if a cell is missing.

    Empty for a table without averages, or without scores for the averaged benchmarks.

    Raises:
        ReportError: a model lacks the baseline that its rows are relative to.
    """
    average = table.layout.average
    if average is None or not set(average.benchmarks) <= {quantity.key for quantity in table.layout.quantities}:
        return {}
    averages: dict[tuple[str, str], float] = {}
    for rows in _models(table):
        scores = _frame([row for row in rows if row.kind == "score"], average.benchmarks)
        if average.baseline is None:
            means = with_average(scores)[AVERAGE]
        else:
            baselines = [row.name for row in rows if row.fields["variant"] == average.baseline]
            means = relative_retention(scores, baselines[0] if baselines else average.baseline)
        averages |= {(str(name), "score"): float(value) for name, value in means.items()}
        ratios = with_average(_frame([row for row in rows if row.kind == "ratio"], average.benchmarks))[AVERAGE]
        averages |= {(str(name), "ratio"): float(value) for name, value in ratios.items()}
    return averages


def printed_otherwise(table: PublishedTable) -> Mapping[tuple[str, str], str]:
    """Recomputed averages that differ from the printed ones, to one digit more than printed, by row name and kind.

    Raises:
        ReportError: as in `own_averages`.
    """
    average = table.layout.average
    found: dict[tuple[str, str], str] = {}
    for row in table.rows:
        value = own_averages(table).get((row.name, row.kind), math.nan)
        if average is not None and AVERAGE in row.numbers and not math.isnan(value):
            printed = float(row.numbers[AVERAGE].value)
            if differs(printed, value, average.digits):
                found[row.name, row.kind] = f"{value:.{average.digits + 1}f}"
    return found


def differs(printed: float, recomputed: float, digits: int) -> bool:
    """True if the recomputed average differs from the printed one when rounded to `digits`."""
    return f"{printed:.{digits}f}" != f"{recomputed:.{digits}f}"


def _models(table: PublishedTable) -> Iterator[list[PrintedRow]]:
    for model in dict.fromkeys(row.fields["model"] for row in table.rows):
        yield [row for row in table.rows if row.fields["model"] == model]


def _frame(rows: list[PrintedRow], benchmarks: tuple[str, ...]) -> pd.DataFrame:
    """Scores or ratios as rows x benchmarks; NaN where the paper prints none."""
    cells = {row.name: {key: score(number) for key, number in row.numbers.items()} for row in rows}
    return pd.DataFrame.from_dict(cells, orient="index", dtype=float).reindex(columns=list(benchmarks))


def _row_name(number: PrintedNumber, layout: Layout) -> str:
    parts = [number.model, number.variant]
    if "=" in number.setting:
        parts.append(number.setting)
    if layout.remark and layout.remark in number.note:
        parts.append(layout.remark)
    return ", ".join(parts)


def _row_fields(number: PrintedNumber, layout: Layout) -> dict[str, str]:
    parts = [*number.variant.split("; "), *number.setting.split("; ")]
    named = [part.split("=", 1) for part in parts if "=" in part]
    remark = "yes" if layout.remark and layout.remark in number.note else "no"
    return {"model": number.model, "variant": number.variant, "remark": remark} | dict(named)


def _quantity(number: PrintedNumber, layout: Layout, path: Path) -> Quantity:
    for quantity in layout.quantities:
        if quantity.benchmark == number.benchmark and quantity.setting in (None, number.setting):
            return quantity
    wanted = f"{number.benchmark} {number.setting}".strip()
    known = ", ".join(quantity.key for quantity in layout.quantities)
    raise ReportError(
        f"{path} has {wanted} for {number.model}, which is not a column of the table; expected one of {known}."
    )


def _check_number(number: PrintedNumber, place: str) -> None:
    try:
        float(number.value)
    except ValueError as error:
        raise ReportError(f"{place}: {number.value!r} is not a number.") from error
