"""A table as text: tidy CSV at full precision, LaTeX (booktabs), Markdown, and a table for the terminal.

Numbers are rounded here and, in sentences, in comparison.py; nowhere before. The best value of a column among the rows
that save tokens is bold, ties as printed included; ratio rows are italic; what is unknown is a dash, and a cell with
documents that could not be answered says `failed`.
"""

import math
import re
from collections.abc import Callable

import rich.box
import rich.table
from rich.console import Group
from rich.text import Text

from vico_eval.report.layout import Row, Table
from vico_eval.report.tables import AVERAGE

DASH = "–"
FAILED = "failed"
RATIO_TITLE = "compressed tiles"

_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "–": "--",
    "−": "$-$",
    "±": r"$\pm$",
    "×": r"$\times$",
}


def escape_latex(text: str) -> str:
    """`text` as LaTeX prints it literally; line breaks become spaces."""
    return "".join(_LATEX.get(character, character) for character in _one_line(text))


def escape_markdown(text: str) -> str:
    """`text` as Markdown prints it literally inside a table's cell."""
    return re.sub(r"([\\`*_{}\[\]<>#|~$])", r"\\\1", _one_line(text))


def best_values(table: Table) -> dict[str, str]:
    """The highest printed score of each column among the rows that compete; a column without one is left out."""
    best = {}
    for column in (*table.columns, AVERAGE):
        values = [row.values[column] for row in table.rows if row.competes and not math.isnan(row.values[column])]
        if values:
            best[column] = _number(table, column, max(values))
    return best


def to_latex(table: Table, label: str) -> str:
    """The table as a LaTeX float, for a document that loads booktabs."""
    names = [escape_latex(column) for column in table.columns]
    lines = [
        r"% Needs \usepackage{booktabs}.",
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{escape_latex(table.caption)}}}",
        rf"  \label{{{re.sub(r'[^A-Za-z0-9:-]', '-', label)}}}",
        rf"  \begin{{tabular}}{{l{'r' * len(names)}r}}",
        r"    \toprule",
        rf"    {' & '.join(['Method', *names, AVERAGE])} \\",
        r"    \midrule",
    ]
    for row in table.rows:
        cells = _cells(table, row, bold=lambda text: rf"\textbf{{{text}}}", percent=r"\%", dash="--")
        if row.kind == "ratio":
            cells = [cell if cell == "--" else rf"\textit{{{cell}}}" for cell in cells]
        title = rf"\quad\textit{{{RATIO_TITLE}}}" if row.kind == "ratio" else escape_latex(row.title)
        lines.append(rf"    {' & '.join([title, *cells])} \\")
        if row.title == table.baseline and len(table.rows) > 1:
            lines.append(r"    \midrule")
    lines += [r"    \bottomrule", r"  \end{tabular}"]
    if table.notes:
        notes = " ".join(escape_latex(note) for note in table.notes)
        lines.append(rf"  \par\smallskip\parbox{{\linewidth}}{{\footnotesize {notes}}}")
    return "\n".join([*lines, r"\end{table}", ""])


def to_markdown(table: Table) -> str:
    """The table in Markdown, with what it measured against the baseline beside the averages, and the notes beneath."""
    header, body = _with_margins(table, bold=lambda text: f"**{text}**", italic=lambda text: f"*{text}*")
    lines = [
        f"**{escape_markdown(table.caption)}**",
        "",
        f"| {' | '.join(escape_markdown(name) for name in header)} |",
        f"|:--{'|--:' * (len(header) - 1)}|",
    ]
    for row, cells in body:
        title = f"*{RATIO_TITLE}*" if row.kind == "ratio" else escape_markdown(row.title)
        lines.append(f"| {' | '.join([title, *cells])} |")
    lines += ["", *(f"{escape_markdown(note)}  " for note in _footnotes(table))]
    if table.comparison:
        lines += ["", f"**Against {escape_markdown(table.baseline)}**", ""]
        lines += [f"- {escape_markdown(sentence)}" for sentence in table.comparison]
    return "\n".join(lines) + "\n"


def to_terminal(table: Table, width: int | None = None) -> Group:
    """The table for a rich console; names are printed as they are, never read as markup.

    Args:
        table: what to print.
        width: the console's columns; where the table needs more, its columns follow in further blocks. None prints a
            single one, whatever it needs.
    """
    header, body = _with_margins(table, bold=lambda text: f"{text}{_BOLD}", italic=lambda text: text)
    blocks = [_terminal_block(header, body, columns) for columns in _fitting_columns(header, body, width)]
    notes = [Text(note, style="dim") for note in _footnotes(table)]
    heading = [Text(f"\nAgainst {_one_line(table.baseline)}", style="bold")] if table.comparison else []
    return Group(Text(table.caption, style="bold"), *blocks, *notes, *heading, *map(Text, table.comparison))


# A private mark on a cell, which rich styles; no number holds it.
_BOLD = "\0"

_TITLE_WIDTH = 24
_GAP, _EDGES = 2, 3


def _fitting_columns(header: list[str], body: list[tuple[Row, list[str]]], width: int | None) -> list[range]:
    """The columns of each block, so that a block fits the console beside the rows' titles."""
    if width is None:
        return [range(1, len(header))]
    blocks = [range(1, 1)]
    titles = _EDGES + min(_TITLE_WIDTH, max(len(_row_title(row)) for row, _ in body))
    used = titles
    for column, name in enumerate(header[1:], start=1):
        needed = _GAP + max(len(name), *(len(cells[column - 1].rstrip(_BOLD)) for _, cells in body))
        if used + needed > width and len(blocks[-1]) > 0:
            blocks.append(range(column, column))
            used = titles
        used += needed
        blocks[-1] = range(blocks[-1].start, column + 1)
    return blocks


def _terminal_block(header: list[str], body: list[tuple[Row, list[str]]], columns: range) -> rich.table.Table:
    block = rich.table.Table(box=rich.box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    block.add_column(header[0], max_width=_TITLE_WIDTH)
    for column in columns:
        block.add_column(Text(header[column]), justify="right", no_wrap=True)
    for row, cells in body:
        is_ratio = row.kind == "ratio"
        shown = [cells[column - 1] for column in columns]
        if not any(shown):
            continue
        style = "italic dim" if is_ratio else ""
        texts = [Text(cell.rstrip(_BOLD), style="bold" if cell.endswith(_BOLD) else style) for cell in shown]
        block.add_row(Text(_row_title(row), style=style), *texts)
    return block


def _row_title(row: Row) -> str:
    return f"  {RATIO_TITLE}" if row.kind == "ratio" else _one_line(row.title)


def _with_margins(
    table: Table, *, bold: Callable[[str], str], italic: Callable[[str], str]
) -> tuple[list[str], list[tuple[Row, list[str]]]]:
    """Header and cells of the forms that have room for the difference from the baseline and the visual tokens."""
    has_margins = not table.summary.empty
    header = ["Method", *table.columns, AVERAGE] + (["Difference", "Visual tokens"] if has_margins else [])
    body = []
    for row in table.rows:
        cells = _cells(table, row, bold=bold, percent="%", dash=DASH)
        if row.kind == "ratio":
            cells = [cell if cell == DASH else italic(cell) for cell in cells] + [""] * (2 * has_margins)
        elif has_margins:
            summary = table.summary.loc[row.title]
            margin = "" if row.title == table.baseline else _margin(summary["difference"], summary["difference_se"])
            cells += [margin, _percent(summary["token_share"], digits=1, percent="%", dash=DASH)]
        body.append((row, cells))
    return header, body


def _cells(table: Table, row: Row, *, bold: Callable[[str], str], percent: str, dash: str) -> list[str]:
    best = best_values(table)
    cells = []
    for column in (*table.columns, AVERAGE):
        value = row.values[column]
        if row.kind == "ratio":
            cells.append(_percent(value, digits=1 if column == AVERAGE else 0, percent=percent, dash=dash))
            continue
        if math.isnan(value):
            cells.append(FAILED if column in row.failed else dash)
            continue
        number = _number(table, column, value)
        text = f"{number}{percent}" if column == AVERAGE else number
        cells.append(bold(text) if row.competes and best.get(column) == number else text)
    return cells


def _footnotes(table: Table) -> list[str]:
    if table.summary.empty:
        return list(table.notes)
    documents = table.summary["documents"].max()
    text = (
        f"{AVERAGE}: mean score relative to that of {table.baseline}. Difference: of the mean scores, in points, ± its "
        f"standard error from differences on the same document ({documents:.0f} documents a row). Visual tokens: those "
        f"a decoder layer sees, relative to {table.baseline}."
    )
    spreads = [
        f"{title}: retention spreads by {spread:.1f} over its runs (sample standard deviation)."
        for title, spread in table.summary["retention_spread"].dropna().items()
    ]
    return [text, *table.notes, *spreads]


def _number(table: Table, column: str, value: float) -> str:
    return f"{value:.{table.digits.get(column, 1)}f}"


def _percent(value: float, *, digits: int, percent: str, dash: str) -> str:
    return dash if math.isnan(value) else f"{value:.{digits}f}{percent}"


def _margin(difference: float, error: float) -> str:
    if math.isnan(difference):
        return DASH
    text = f"{difference:+.1f}".replace("-", "−")
    return f"{text} ± {DASH if math.isnan(error) else f'{error:.1f}'}"


def _one_line(text: str) -> str:
    return "".join(character for character in " ".join(text.split()) if character.isprintable())
