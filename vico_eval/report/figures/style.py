"""What the pictures of a table have in common: sizes for a paper's page, colours, markers and type.

Text is 8 pt at the size at which a picture is printed, so none is to be scaled. There are no titles: captions are.
"""

import re
from dataclasses import dataclass
from typing import Any

from vico_eval.report.tables.table import Table

PAGE, COLUMN = 6.9, 3.3
"""Widths in inches: across both columns of a page, and one column."""

PAGE_HEIGHT = 9.0
"""Inches of text."""

TEXT = 8.0
"""Points, of all text but numbers within marks."""

LINE = 0.135
"""Inches from one line of text to the next."""

# Apart from each other for every common colour vision together with the markers; each has a contrast of at least 4.5
# on white, since names are written in it. The family of the last table row gets the first.
COLOURS = ("#B84700", "#0069A8", "#00755A", "#A23E7E", "#7D5A00", "#5B4DB0", "#555555", "#000000")

# One more than there are colours, so that no two of the first 72 families look alike.
MARKERS = ("o", "s", "^", "D", "P", "X", "h", "p", "*")

# Any: matplotlib types the keys one by one, differently in each release.
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": TEXT,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.edgecolor": "#8A8A8A",
    "axes.labelcolor": "#222222",
    "axes.labelpad": 2.5,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.0,
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "pdf.fonttype": 42,
}

INK, FAINT = "#222222", "#5F5F5F"
RULE, GRID = "#8A8A8A", "#E9E9E9"


@dataclass(frozen=True, kw_only=True, slots=True)
class Sheet:
    """What a picture is drawn for."""

    width: float = PAGE
    """Inches."""

    is_serif: bool = False
    """Type like Times, as the text of most papers, in place of a sans serif."""

    @property
    def style(self) -> Any:
        """For `matplotlib.rc_context`."""
        # DejaVu has the signs that STIX lacks.
        return {**STYLE, "font.family": ["STIXGeneral", "DejaVu Serif"]} if self.is_serif else STYLE

    @property
    def is_narrow(self) -> bool:
        """Whether it is for one column."""
        return self.width < (PAGE + COLUMN) / 2

    def has_room(self, height: float) -> bool:
        """Whether a picture of so many inches is to be drawn: a column ends with the page, and of many rows and
        benchmarks the picture across the page is there."""
        return not self.is_narrow or height <= PAGE_HEIGHT


@dataclass(frozen=True, slots=True)
class Look:
    """How a row is drawn in every picture of a table."""

    colour: str
    marker: str
    is_hollow: bool = False


def looks(table: Table) -> dict[str, Look]:
    """Each row's look by title: one colour a family of rows, and a marker of its own; the baseline is hollow.

    A family are the rows whose titles begin with the same word, such as ViCO and ViCO (All Compress).
    """
    found = {table.baseline: Look(INK, "o", is_hollow=True)}
    families: dict[str, list[str]] = {}
    for title in compared_rows(table):
        families.setdefault(family(title), []).append(title)
    rows = [(place, title) for place, titles in enumerate(families.values()) for title in titles]
    for number, (place, title) in enumerate(rows):
        found[title] = Look(COLOURS[place % len(COLOURS)], MARKERS[number % len(MARKERS)])
    return found


def family(title: str) -> str:
    """The first word of a row's title."""
    return re.split(r"[\s(@+]", title.strip(), maxsplit=1)[0] or title


def compared_rows(table: Table) -> list[str]:
    """The rows other than the baseline, last one first: a row's place says its colour in every picture of the table."""
    return [str(title) for title in reversed(table.summary.index) if title != table.baseline]


def short(text: str, longest: int) -> str:
    """Text in one line of at most so many characters, as matplotlib takes it."""
    line = " ".join(text.split())
    return literal(line if len(line) <= longest else f"{line[: longest - 1].rstrip()}…")


def literal(text: str) -> str:
    """Text that matplotlib draws as it stands."""
    # matplotlib reads a pair of dollars as mathematics.
    return text.replace("$", r"\$")


def named_baseline(title: str, longest: int) -> str:
    """The baseline's title for a label of an axis, or what it is where the title is longer than that."""
    return literal(title) if len(title) <= longest else "the baseline"
