"""Common style of a table's figures: sizes for a paper's page, colours, markers and fonts.

Text is 8 pt at print size, so figures should not be scaled. Figures have no titles, since papers have captions.
"""

import re
from dataclasses import dataclass
from typing import Any

from vico_eval.report.tables.table import Table

PAGE, COLUMN = 6.9, 3.3
"""Widths in inches: full page width and one column."""

PAGE_HEIGHT = 9.0
"""Height of the text area, in inches."""

TEXT = 8.0
"""Font size in points, except for numbers inside marks."""

LINE = 0.135
"""Line spacing, in inches."""

# Together with the markers, these are distinct for every common colour vision. Each has a contrast of at least 4.5 on
# white, because names are written in it. The family of the last table row gets the first colour.
COLOURS = ("#B84700", "#0069A8", "#00755A", "#A23E7E", "#7D5A00", "#5B4DB0", "#555555", "#000000")

# One more marker than colours, so that the first 72 combinations differ.
MARKERS = ("o", "s", "^", "D", "P", "X", "h", "p", "*")

# Any, because matplotlib lists the keys' types one by one, differently in each release.
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
    """The page format that a figure is drawn for."""

    width: float = PAGE
    """Inches."""

    is_serif: bool = False
    """Use a Times-like font, as in most papers, in place of a sans serif."""

    @property
    def style(self) -> Any:
        """Settings for `matplotlib.rc_context`."""
        # DejaVu has the symbols that STIX lacks.
        return {**STYLE, "font.family": ["STIXGeneral", "DejaVu Serif"]} if self.is_serif else STYLE

    @property
    def is_narrow(self) -> bool:
        """True for a single column."""
        return self.width < (PAGE + COLUMN) / 2

    def has_room(self, height: float) -> bool:
        """True if a figure of this height, in inches, should be drawn. A column is limited to the page's height; for
        many rows and benchmarks there is only the figure at page width."""
        return not self.is_narrow or height <= PAGE_HEIGHT


@dataclass(frozen=True, slots=True)
class Look:
    """A row's style in every figure of a table."""

    colour: str
    marker: str
    is_hollow: bool = False


def looks(table: Table) -> dict[str, Look]:
    """Each row's look by title: a colour per family of rows, and a marker per row; the baseline is hollow.

    A family consists of rows whose titles begin with the same word, such as ViCO and ViCO (All Compress).
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
    """The rows except the baseline, in reverse order. A row's position determines its colour in all figures."""
    return [str(title) for title in reversed(table.summary.index) if title != table.baseline]


def short(text: str, longest: int) -> str:
    """Text on one line, shortened to at most `longest` characters and escaped for matplotlib."""
    line = " ".join(text.split())
    return literal(line if len(line) <= longest else f"{line[: longest - 1].rstrip()}…")


def literal(text: str) -> str:
    """Text escaped so that matplotlib draws it literally."""
    # matplotlib parses text between dollar signs as math.
    return text.replace("$", r"\$")


def named_baseline(title: str, longest: int) -> str:
    """The baseline's title for an axis label, or `the baseline` if the title is longer than `longest`."""
    return literal(title) if len(title) <= longest else "the baseline"
