"""CSV that is safe in spreadsheets: text that looks like a formula is prefixed with an apostrophe.

Numbers are written unchanged, including negative ones. Text that already starts with such an apostrophe gets another,
so removing the first one restores the text. Line ends become line feeds.
"""

import csv
import io
import re
from collections.abc import Iterable, Sequence

import pandas as pd
from pandas.api.types import is_numeric_dtype

# What spreadsheets of any language treat as a formula, including full-width signs and leading blanks.
_FORMULA = re.compile(r"'*(?:\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n])")
_NUMBER = re.compile(r"[+-]?[\d,]*\.?\d+(?:[eE][+-]?\d+)?%?")


class Number(str):
    """A number already formatted as text, which is written unchanged."""

    __slots__ = ()


def number_or_text(cell: str) -> str:
    """A table's cell, as a `Number` if it contains only a number."""
    return Number(cell) if _NUMBER.fullmatch(cell) else cell


def as_text(text: str) -> str:
    """The text, prefixed if a spreadsheet would take it for a formula."""
    return f"'{text}" if _FORMULA.match(text) else text


def csv_text(lines: Iterable[Sequence[object]]) -> str:
    """The lines as CSV, with text protected unless it is a `Number`."""
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([_cell(cell) for cell in line] for line in lines)
    return stream.getvalue()


def frame_to_csv(frame: pd.DataFrame) -> str:
    """The frame as CSV, without its index."""
    texts = {
        str(name): pd.Series([_cell(cell) for cell in frame[name]], index=frame.index, dtype=frame[name].dtype)
        for name in frame
        if not is_numeric_dtype(frame[name])
    }
    return str(frame.assign(**texts).to_csv(index=False, lineterminator="\n"))


def _cell(cell: object) -> object:
    if not isinstance(cell, str) or isinstance(cell, Number):
        return cell
    # Python's writer does not quote a carriage return, at which readers then start a new line.
    return as_text(cell).replace("\r\n", "\n").replace("\r", "\n")
