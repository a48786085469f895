r"""Format a grid as a LaTeX float for a two-column article: 8 pt, in one column or across both, never scaled.

The narrowest format that fits is used: titles on one or two lines, `table` (one column) or `table*` (full page). A
table wider than the page continues in a second tabular below. Widths are those of Computer Modern, the widest of the
common text fonts, and rather over- than underestimated.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from vico_eval.report.tables.grid import DASH, OTHERWISE, Column, Grid, GridCell, Line, column_groups
from vico_eval.report.tables.latex_text import escape_latex

COLUMN, PAGE = 238.0, 496.0
"""Points: 3.3 and 6.875 inches, the column and text widths of common two-column styles."""

SIZE = r"\fontsize{8}{9.5}\selectfont"

_GAP, _NARROW_GAP, _MARK_GAP = 8.0, 4.0, 6.0
"""Points between columns; the last is for columns whose numbers have marks, which hang in the gap."""

_LONGEST_TITLE = 150.0
"""Points; longer line titles are wrapped."""

# Advance widths of Computer Modern Roman by character, in em. Bold is wider; kerning and ligatures only reduce widths.
_EM = 8.5
"""Points per em of 8 pt type."""

_WIDTHS = {
    character: width
    for width, characters in (
        (0.28, "il.,:;|!'"),
        (0.34, "fjI- "),
        (0.39, "rst()[]"),
        (0.45, "cez"),
        (0.50, "ago0123456789/–*"),
        (0.53, "kqvxyJ"),
        (0.56, "bdhnpuS"),
        (0.63, "LZ"),
        (0.69, "EFPB"),
        (0.74, "wCTQR"),
        (0.79, "ADGHKNOUVXY+=−±×✓<>≥~"),
        (0.84, "m%"),
        (0.92, "M"),
        (1.03, "W@"),
    )
    for character in characters
}
_OTHER, _BOLD = 0.8, 1.16

_INDENT = 8.5
"""Indentation of the title of a line that belongs to the one above it, in points."""

_MARKS = f"*{OTHERWISE}"

# Where a title may be broken: at a blank, after a hyphen, and between the words of a compound such as TextVQA or
# MMBench.
_BREAKS = re.compile(r" |(?<=-)(?=.)|(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z]{2})")

_RULE = r"\midrule"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Form:
    """Format of a grid."""

    width: float
    """Available width, points."""

    gap: float
    has_two_lines: bool
    """Column titles may be broken into two lines."""


_FORMS = (
    _Form(width=COLUMN, gap=_GAP, has_two_lines=False),
    _Form(width=COLUMN, gap=_NARROW_GAP, has_two_lines=True),
    _Form(width=PAGE, gap=_GAP, has_two_lines=False),
    _Form(width=PAGE, gap=_NARROW_GAP, has_two_lines=True),
)


def grid_to_latex(grid: Grid, label: str) -> str:
    """The table as a LaTeX float, for a document that loads booktabs."""
    form, blocks = _fitting(grid)
    environment = "table" if form.width == COLUMN else "table*"
    lines = [
        r"% Needs \usepackage{booktabs}.",
        rf"\begin{{{environment}}}[t]",
        r"  \centering",
        # Most classes put the space above captions, as for figures, so a caption above a table would touch it.
        r"  \setlength{\abovecaptionskip}{0pt}\setlength{\belowcaptionskip}{5pt}",
        rf"  \caption{{{escape_latex(grid.caption)}}}",
        rf"  \label{{{re.sub(r'[^A-Za-z0-9:-]', '-', label)}}}",
        rf"  {SIZE}\setlength{{\tabcolsep}}{{{form.gap / 2:g}pt}}",
    ]
    for place, block in enumerate(blocks):
        lines += [r"  \par\smallskip"] if place else []
        lines += [f"  {line}" for line in _tabular(grid, block, form)]
    if grid.notes:
        notes = " ".join(escape_latex(note) for note in grid.notes)
        lines.append(rf"  \par\smallskip\parbox{{\linewidth}}{{\raggedright {notes}}}")
    return "\n".join([*lines, rf"\end{{{environment}}}", ""])


def _fitting(grid: Grid) -> tuple[_Form, list[range]]:
    """The first format that fits all columns, or else the last one, with the columns of each tabular."""
    everything = range(len(grid.columns))
    for form in _FORMS:
        if _width(grid, everything, form) <= form.width:
            return form, [everything]
    return form, _blocks(grid, form)


def _blocks(grid: Grid, form: _Form) -> list[range]:
    """Split the columns into as few tabulars as fit the page, keeping a group together if it fits."""
    starts = {start for _, start, _ in column_groups(grid.columns)}
    blocks = []
    first = 0
    while first < len(grid.columns):
        stop = first + 1
        while stop < len(grid.columns) and _width(grid, range(first, stop + 1), form) <= form.width:
            stop += 1
        if stop < len(grid.columns):
            stop = max((start for start in starts if first < start <= stop), default=stop)
        blocks.append(range(first, stop))
        first = stop
    return blocks


def _width(grid: Grid, columns: range, form: _Form) -> float:
    """Width of a tabular with these columns, points."""
    heads = [_head_width(grid, place, form) for place in range(len(grid.heads))]
    # A title that spans all of these columns widens the last one.
    across = max((_cell_width(line.titles[-1]) + _INDENT for line in grid.lines if _spans(line)), default=0.0)
    heads[-1] += max(0.0, across - sum(heads) - form.gap * (len(heads) - 1))
    numbers = [_column_width(grid, place, form) for place in columns]
    for name, start, stop in column_groups([grid.columns[place] for place in columns]):
        # A group's name may be wider than its columns, which are then widened.
        spare = _text_width(name) - sum(numbers[start:stop]) - form.gap * (stop - start - 1)
        numbers[stop - 1] += max(0.0, spare)
    return sum(heads) + sum(numbers) + form.gap * (len(heads) + len(numbers))


def _head_width(grid: Grid, place: int, form: _Form) -> float:
    texts = [_cell_width(line.titles[place]) + _INDENT * line.is_italic for line in grid.lines if not _spans(line)]
    return min(_LONGEST_TITLE, max(_title_width(grid.heads[place], form), *texts))


def _spans(line: Line) -> bool:
    """True if a line's title can span all title columns, because it belongs to the line above."""
    return line.is_italic and len(line.titles) > 1 and all(cell.is_repeated for cell in line.titles[:-1])


def _column_width(grid: Grid, place: int, form: _Form) -> float:
    texts = [_cell_width(line.cells[place]) for line in grid.lines]
    return max(_title_width(grid.columns[place].title, form), *texts) + _extra_gap(grid, place, form)


def _extra_gap(grid: Grid, place: int, form: _Form) -> float:
    """Extra space after a column in addition to the format's gap, points."""
    has_marks = any(line.cells[place].text.endswith(tuple(_MARKS)) for line in grid.lines)
    return max(0.0, _MARK_GAP - form.gap) if has_marks else 0.0


def _cell_width(cell: GridCell) -> float:
    return 0.0 if cell.is_repeated else _text_width(cell.text.rstrip(_MARKS)) * (_BOLD if cell.is_bold else 1.0)


def _title_width(title: str, form: _Form) -> float:
    return max(map(_text_width, _title_lines(title, form)))


def _text_width(text: str) -> float:
    return _EM * sum(_WIDTHS.get(character, _OTHER) for character in text)


def _title_lines(title: str, form: _Form) -> tuple[str, str]:
    """A title's two lines; the upper one is empty if the title isn't broken."""
    places = [(found.start(), found.end()) for found in _BREAKS.finditer(title)] if form.has_two_lines else []
    parts = [("", title), *((title[:start], title[end:]) for start, end in places)]
    return min(parts, key=lambda part: max(map(_text_width, part)))


def _tabular(grid: Grid, columns: range, form: _Form) -> Iterator[str]:
    shown = [grid.columns[place] for place in columns]
    heads = "".join(
        # Long titles are set as paragraphs.
        rf"p{{{_LONGEST_TITLE:g}pt}}" if _head_width(grid, place, form) >= _LONGEST_TITLE else "l"
        for place in range(len(grid.heads))
    )
    extra = [_extra_gap(grid, place, form) for place in columns]
    numbers = "".join(f"r@{{\\hspace{{{form.gap + more:g}pt}}}}" if more else "r" for more in extra[:-1])
    yield rf"\begin{{tabular}}{{@{{}}{heads}{numbers}r@{{}}}}"
    yield r"  \toprule"
    yield from (f"  {line}" for line in _header(grid.heads, shown, form))
    lines = [line for line in grid.lines if not line.is_italic or any(line.cells[place].text for place in columns)]
    # A heading has a rule above and below it; consecutive rules are merged.
    body = [_RULE, *(text for line in lines for text in _line(line, columns, len(grid.heads) + len(shown)))]
    yield from (f"  {one}" for before, one in pairwise(["", *body]) if not before == one == _RULE)
    yield r"  \bottomrule"
    yield r"\end{tabular}"


def _header(heads: Sequence[str], columns: Sequence[Column], form: _Form) -> list[str]:
    """The titles, below their groups if there are any."""
    lines = []
    if any(column.group for column in columns):
        groups, rules = [""] * len(heads), []
        for name, start, stop in column_groups(columns):
            spanned = rf"\multicolumn{{{stop - start}}}{{c}}{{{escape_latex(name)}}}"
            groups += [spanned] if name else [""] * (stop - start)
            rules += [rf"\cmidrule(lr){{{len(heads) + start + 1}-{len(heads) + stop}}}"] if name else []
        lines += [rf"{' & '.join(groups)} \\", "".join(rules)]
    titles = [_title_lines(title, form) for title in (*heads, *(column.title for column in columns))]
    for place in (0, 1):
        texts = [escape_latex(title[place]) for title in titles]
        lines += [rf"{' & '.join(texts)} \\"] if any(texts) else []
    return lines


def _line(line: Line, columns: range, width: int) -> Iterator[str]:
    """A line with its heading and rules."""
    if line.heading:
        yield _RULE
        yield rf"\multicolumn{{{width}}}{{c}}{{\textit{{{escape_latex(line.heading)}}}}} \\"
        yield _RULE
    cells = [_cell(line, cell, is_title=True) for cell in line.titles]
    if _spans(line):
        cells = [rf"\multicolumn{{{len(cells)}}}{{@{{}}l}}{{{cells[-1]}}}"]
    cells += [_cell(line, line.cells[place], is_title=False) for place in columns]
    yield rf"{' & '.join(cells)} \\"
    if line.rule_after:
        yield _RULE


def _cell(line: Line, cell: GridCell, *, is_title: bool) -> str:
    if cell.is_repeated:
        return ""
    bare = cell.text if is_title else cell.text.rstrip(_MARKS)
    text = escape_latex(bare)
    if cell.is_bold:
        text = rf"\textbf{{{text}}}"
    if line.is_italic and text and cell.text != DASH:
        text = rf"\textit{{{text}}}"
        text = rf"\quad{text}" if is_title else text
    # Marks hang to the right, so that the digits of a column are aligned.
    marks = cell.text[len(bare) :]
    return rf"{text}\rlap{{{escape_latex(marks)}}}" if marks else text
