"""Lay out the papers' tables with every number as printed, and write them to files.

A printed average that differs from the one recomputed from its cells is marked, and a note below the table gives the
recomputed value.

Bold is our own choice, because the stored numbers don't include it: the highest score of a column within a group of at
least two rows, including ties as printed. Reference rows are never bold, nor is the 100% that others are relative to.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from vico_eval.errors import OutputError
from vico_eval.report.papers.layout import Head, Layout, Quantity
from vico_eval.report.papers.printed import PrintedNumber, PrintedRow, PublishedTable, own_averages, printed_otherwise
from vico_eval.report.stats.retention import AVERAGE
from vico_eval.report.tables.csv_text import Number, csv_text
from vico_eval.report.tables.grid import (
    DASH,
    OTHERWISE,
    Column,
    Grid,
    GridCell,
    Line,
    best_text,
    grid_to_csv,
    grid_to_markdown,
)
from vico_eval.report.tables.latex_table import grid_to_latex

RATIO_TITLE = "Ratio of Compressed Patches"
"""Title of the row in ViCO's tables."""

_TIDY = ("paper", "table", "row", "benchmark", "setting", "metric", "value", "unit", "recomputed", "note")


def published_grid(table: PublishedTable) -> Grid:
    """A paper's table as text: numbers as printed, with averages marked that differ from their cells'."""
    layout = table.layout
    otherwise = printed_otherwise(table)
    lines: list[Line] = []
    groups = _groups(table)
    for number, group in enumerate(groups):
        best = {quantity.key: _best(group, quantity, layout) for quantity in layout.quantities}
        for place, row in enumerate(group):
            cells = tuple(
                GridCell(
                    text=_text(row, quantity, layout, otherwise),
                    is_bold=_competes(row, quantity, layout) and _bare(row, quantity) == best[quantity.key] is not None,
                )
                for quantity in layout.quantities
            )
            lines.append(
                Line(
                    titles=_titles(row, group[place - 1] if place else None, layout.heads),
                    cells=cells,
                    is_italic=row.kind == "ratio",
                    rule_after=row is group[-1] and number < len(groups) - 1,
                )
            )
    return Grid(
        caption=layout.caption,
        heads=tuple(head.title for head in layout.heads),
        columns=tuple(
            # A benchmark's own name identifies the column where there is no line for groups.
            Column(title=quantity.title or quantity.benchmark, group=quantity.group, is_complete=not quantity.title)
            for quantity in layout.quantities
        ),
        lines=tuple(lines),
        notes=(*_average_note(table, otherwise), *layout.notes),
    )


def tidy_csv(table: PublishedTable) -> str:
    """The table's numbers as CSV, one per line: `value` as printed, and `recomputed`, the unrounded average of the
    table's cells, which is empty for other numbers and if cells are missing."""
    averages = own_averages(table)
    lines: list[Sequence[object]] = [_TIDY]
    for row in table.rows:
        for key, number in row.numbers.items():
            average = averages.get((row.name, row.kind), math.nan) if key == AVERAGE else math.nan
            what = (table.layout.paper, table.layout.number, row.name, number.benchmark, number.setting, number.metric)
            recomputed = None if math.isnan(average) else average
            lines.append((*what, Number(number.value), number.unit, recomputed, number.note))
    return csv_text(lines)


def write_published(table: PublishedTable, out: Path) -> list[Path]:
    """Write `table3.csv` (tidy), `table3_layout.csv`, `table3.tex` and `table3.md` to the paper's folder in `out`.

    Raises:
        OutputError: the files can't be written.
    """
    layout, grid = table.layout, published_grid(table)
    stem = out / layout.paper / f"table{layout.number}"
    texts = {
        stem.with_name(f"{stem.name}.csv"): tidy_csv(table),
        stem.with_name(f"{stem.name}_layout.csv"): grid_to_csv(grid),
        stem.with_name(f"{stem.name}.tex"): grid_to_latex(grid, f"tab:{layout.paper}-{layout.number}"),
        stem.with_name(f"{stem.name}.md"): grid_to_markdown(grid),
    }
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
        for path, text in texts.items():
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"The tables can't be written to {stem.parent}: {error}. Choose another folder.") from error
    return list(texts)


def _groups(table: PublishedTable) -> list[list[PrintedRow]]:
    layout = table.layout
    groups: list[list[PrintedRow]] = []
    for row in table.rows:
        value = row.fields.get(layout.group_by, "")
        changes = not groups or groups[-1][-1].fields.get(layout.group_by, "") != value
        if not groups or (changes and value in (layout.group_starts or (value,))):
            groups.append([])
        groups[-1].append(row)
    return groups


def _titles(row: PrintedRow, above: PrintedRow | None, heads: Sequence[Head]) -> tuple[GridCell, ...]:
    titles = []
    for head in heads:
        value = row.fields.get(head.source, "")
        is_repeated = head.is_merged and above is not None and above.fields.get(head.source, "") == value
        titles.append(GridCell(text=head.names.get(value, value), is_repeated=is_repeated))
    if row.kind == "ratio":
        titles[-1] = GridCell(text=RATIO_TITLE)
    return tuple(titles)


def _competes(row: PrintedRow, quantity: Quantity, layout: Layout) -> bool:
    is_hundred = (
        quantity.key == AVERAGE
        and layout.average is not None
        and layout.average.baseline is not None
        and row.fields["variant"] == layout.average.baseline
    )
    return (
        quantity.is_score and row.kind == "score" and row.fields["variant"] not in layout.references and not is_hundred
    )


def _best(group: Sequence[PrintedRow], quantity: Quantity, layout: Layout) -> str | None:
    shown = [_bare(row, quantity) for row in group if _competes(row, quantity, layout)]
    known = [text for text in shown if text is not None]
    return best_text((float(text), text) for text in known) if len(known) > 1 else None


def _bare(row: PrintedRow, quantity: Quantity) -> str | None:
    """The number as printed, without unit and marks; None if there is none."""
    number = row.numbers.get(quantity.key)
    return None if number is None else number.value


def _text(row: PrintedRow, quantity: Quantity, layout: Layout, otherwise: Mapping[tuple[str, str], str]) -> str:
    number = row.numbers.get(quantity.key)
    if number is None:
        return DASH
    is_average = quantity.key == AVERAGE
    unit = _unit(row.kind, layout) if is_average or row.kind == "ratio" else quantity.unit
    text = _with_marks(f"{number.value}{unit}", number)
    return f"{text}{OTHERWISE}" if is_average and (row.name, row.kind) in otherwise else text


def _unit(kind: str, layout: Layout) -> str:
    """The unit of a ratio or of the layout's average."""
    is_relative = layout.average is not None and layout.average.baseline is not None
    return "%" if kind == "ratio" or is_relative else ""


def _with_marks(text: str, number: PrintedNumber) -> str:
    before = "~" if "printed with ~" in number.note else ""
    return f"{before}{text}{'*' if 'printed with *' in number.note else ''}"


def _average_note(table: PublishedTable, otherwise: Mapping[tuple[str, str], str]) -> tuple[str, ...]:
    """Notes that define the average, if the table has its scores, and list recomputed averages that differ."""
    average = table.layout.average
    if average is None or not own_averages(table):
        return ()
    notes = [f"{AVERAGE}: {average.definition}, as printed."]
    if otherwise:
        made = "; ".join(
            f"{name}{' (ratios)' if kind == 'ratio' else ''} {text}{_unit(kind, table.layout)}"
            for (name, kind), text in otherwise.items()
        )
        notes.append(f"{OTHERWISE} The row's cells give another average: {made}.")
    return tuple(notes)
