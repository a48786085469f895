"""A table of text, and its output as Markdown, as CSV and to the terminal; LaTeX is in `latex_table`.

Cells of measured and published tables are already rounded; nothing here depends on the meaning of a number.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import rich.box
import rich.table
from rich.console import Group

from vico_eval.plain_text import one_line, shown
from vico_eval.report.tables.csv_text import csv_text, number_or_text
from vico_eval.terminal import Words, lines_of

DASH = "–"

OTHERWISE = "†"
"""Marks a paper's printed average that differs from the one recomputed from its cells, which is in a note."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """A column of numbers."""

    title: str
    group: str = ""
    """Heading above the titles of adjacent columns of the same group."""

    is_complete: bool = False
    """The title is clear without the group."""

    @property
    def full_title(self) -> str:
        """The title with its group, for formats with a single header line."""
        return self.title if self.is_complete else f"{self.group} {self.title}".strip()


@dataclass(frozen=True, kw_only=True, slots=True)
class GridCell:
    """A cell with unescaped text."""

    text: str
    is_bold: bool = False
    is_repeated: bool = False
    """The text repeats the line above, so it is left blank, except in CSV."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One line below the header."""

    titles: tuple[GridCell, ...]
    cells: tuple[GridCell, ...]
    is_italic: bool = False
    """The line belongs to the one above it, so its title is indented."""

    rule_after: bool = False
    heading: str = ""
    """Heading above the line, across all columns, for the lines up to the next heading; not in CSV."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """A table ready for output."""

    caption: str
    heads: tuple[str, ...]
    """Titles of the columns that identify a line."""

    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...]


def escape_markdown(text: str) -> str:
    """`text` escaped for literal output within a Markdown line or cell, without automatic links on GitHub."""
    escaped = re.sub(r"([\\`*_{}\[\]<>#|~$&])", r"\\\1", one_line(text))
    return re.sub(r"(?<=www)\.|:(?=//)", r"\\\g<0>", escaped)


def markdown_line(text: str) -> str:
    """`text` escaped as a Markdown line that starts neither a list nor a heading."""
    return re.sub(r"^([-+=]|\d+(?=[.)]))", _not_a_list, escape_markdown(text))


def best_text(shown: Iterable[tuple[float, str]]) -> str | None:
    """The printed text of the highest value, so that ties are judged as printed; None without values."""
    known = [(value, text) for value, text in shown if value == value]
    return max(known)[1] if known else None


def with_columns(grid: Grid, places: Sequence[int]) -> Grid:
    """The table with the columns at `places`, in this order."""
    return replace(
        grid,
        columns=tuple(grid.columns[place] for place in places),
        lines=tuple(replace(line, cells=tuple(line.cells[place] for place in places)) for line in grid.lines),
    )


def column_groups(columns: Sequence[Column]) -> list[tuple[str, int, int]]:
    """Name, first index and end index (exclusive) of each run of columns of the same group."""
    groups: list[tuple[str, int, int]] = []
    for index, column in enumerate(columns):
        if groups and groups[-1][0] == column.group:
            groups[-1] = (column.group, groups[-1][1], index + 1)
        else:
            groups.append((column.group, index, index + 1))
    return groups


def grid_to_markdown(grid: Grid) -> str:
    """The table in Markdown, followed by its notes."""
    header = [*grid.heads, *(column.full_title for column in grid.columns)]
    lines = [
        f"**{escape_markdown(grid.caption)}**",
        "",
        f"| {' | '.join(escape_markdown(name) for name in header)} |",
        f"|{':--|' * len(grid.heads)}{'--:|' * len(grid.columns)}",
    ]
    for line in grid.lines:
        if line.heading:
            lines.append(f"| **{escape_markdown(line.heading)}** |{' |' * (len(header) - 1)}")
        lines.append(f"| {' | '.join(_markdown_cells(line))} |")
    lines += ["", *(f"{markdown_line(note)}  " for note in grid.notes)]
    return "\n".join(lines) + "\n"


def grid_to_csv(grid: Grid) -> str:
    """The table as CSV, as laid out, with one header line and every line's titles in full."""
    header = [*grid.heads, *(column.full_title for column in grid.columns)]
    lines = [
        [*(cell.text for cell in line.titles), *(number_or_text(cell.text) for cell in line.cells)]
        for line in grid.lines
    ]
    return csv_text([header, *lines])


def grid_to_terminal(grid: Grid, width: int | None = None) -> Group:
    """The table for a rich console; names are printed literally, not as markup.

    Args:
        grid: the table.
        width: the console's width in columns; a wider table is split into blocks. None prints a single block.
    """
    blocks = [_terminal_block(grid, columns) for columns in _fitting_columns(grid, width)]
    return Group(Words(grid.caption, "bold"), *blocks, *lines_of(grid.notes, "dim"))


def _not_a_list(begin: re.Match[str]) -> str:
    return f"{begin[0]}\\" if begin[0].isdigit() else f"\\{begin[0]}"


def _markdown_cells(line: Line) -> list[str]:
    texts = []
    for cell in (*line.titles, *line.cells):
        text = "" if cell.is_repeated else escape_markdown(cell.text)
        if cell.is_bold:
            text = f"**{text}**"
        if line.is_italic and text and cell.text != DASH:
            text = f"*{text}*"
        texts.append(text)
    return texts


_TITLE_WIDTH = 29
_GAP, _EDGES = 2, 3


def _fitting_columns(grid: Grid, width: int | None) -> list[range]:
    """The columns of each block, chosen so that a block with its titles fits the console."""
    if width is None:
        return [range(len(grid.columns))]
    blocks = [range(0)]
    titles = _EDGES + _GAP * (len(grid.heads) - 1)
    for place in range(len(grid.heads)):
        titles += min(_TITLE_WIDTH, max(len(_terminal_title(line, place)) for line in grid.lines))
    used = titles
    for index, column in enumerate(grid.columns):
        needed = _GAP + max(map(_width, (column.full_title, *(line.cells[index].text for line in grid.lines))))
        if used + needed > width and len(blocks[-1]) > 0:
            blocks.append(range(index, index))
            used = titles
        used += needed
        blocks[-1] = range(blocks[-1].start, index + 1)
    return blocks


def _terminal_block(grid: Grid, columns: range) -> rich.table.Table:
    block = rich.table.Table(box=rich.box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for head in grid.heads:
        block.add_column(Words(head), max_width=_TITLE_WIDTH)
    for index in columns:
        block.add_column(Words(grid.columns[index].full_title), justify="right", no_wrap=True)
    for line in grid.lines:
        own = [line.cells[index] for index in columns]
        if line.heading:
            block.add_section()
            block.add_row(Words(line.heading, "bold"))
        if not any(cell.text for cell in own):
            continue
        style = "italic dim" if line.is_italic else ""
        titles = [Words(_terminal_title(line, place), style) for place in range(len(grid.heads))]
        block.add_row(*titles, *(Words(cell.text, "bold" if cell.is_bold else style) for cell in own))
    return block


def _terminal_title(line: Line, place: int) -> str:
    cell = line.titles[place]
    if cell.is_repeated:
        return ""
    return f"  {one_line(cell.text)}" if line.is_italic else one_line(cell.text)


def _width(text: str) -> int:
    """Width on any terminal; one limited to ASCII shows some of our signs as two characters."""
    return max(len(text), len(shown(text, "ascii")))
