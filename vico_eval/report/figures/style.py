"""What the pictures of a table have in common: colours, type and titles."""

from typing import Any

from vico_eval.report.tables.table import Table

# Okabe and Ito's colours stay apart for every common colour vision; markers tell the rest. Yellow is left out: it
# can't be read on white. The last table row gets the first.
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#B07A00", "#3B9BD4", "#555555", "#000000")

# One more than there are colours, so that no two of the first 72 rows look alike.
MARKERS = ("o", "s", "^", "D", "P", "X", "h", "p", "*")

# Any: matplotlib types the keys one by one, differently in each release.
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 10.0,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.edgecolor": "#8A8A8A",
    "axes.labelcolor": "#222222",
    "axes.linewidth": 0.8,
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "pdf.fonttype": 42,
}

INK, FAINT = "#222222", "#6B6B6B"


def compared_rows(table: Table) -> list[str]:
    """The rows other than the baseline, last one first: a row's place says its colour in every picture of the table."""
    return [str(title) for title in reversed(table.summary.index) if title != table.baseline]


def title_of(table: Table) -> str:
    """The table's caption, short enough for a picture, as matplotlib takes it."""
    return literal(table.caption if len(table.caption) <= 72 else f"{table.caption[:71].rstrip()}…")


def literal(text: str) -> str:
    """Text that matplotlib draws as it stands."""
    # matplotlib reads a pair of dollars as mathematics.
    return text.replace("$", r"\$")
