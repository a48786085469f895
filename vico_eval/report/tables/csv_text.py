"""CSV in which a spreadsheet finds what was meant: text that begins like a formula has an apostrophe before it.

Numbers are written as they are, below zero too. A text that had such an apostrophe already gets one more, so that
leaving out the first one gives the text back; of line ends only line feeds are kept.
"""

import csv
import io
import re
from collections.abc import Iterable, Sequence

import pandas as pd
from pandas.api.types import is_numeric_dtype

# As spreadsheets of any language take it, full-width signs included, after blanks or not.
_FORMULA = re.compile(r"'*(?:\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n])")
_NUMBER = re.compile(r"[+-]?[\d,]*\.?\d+(?:[eE][+-]?\d+)?%?")


class Number(str):
    """A number that is text already, rounded or as printed: it is written as it is."""

    __slots__ = ()


def number_or_text(cell: str) -> str:
    """A table's cell: a `Number` where it is nothing else."""
    return Number(cell) if _NUMBER.fullmatch(cell) else cell


def as_text(text: str) -> str:
    """The text as a spreadsheet takes it for text."""
    return f"'{text}" if _FORMULA.match(text) else text


def csv_text(lines: Iterable[Sequence[object]]) -> str:
    """The lines as CSV; what is text, but no `Number`, as text."""
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
    # Python's writer leaves a carriage return without quotes, and readers then begin a new line there.
    return as_text(cell).replace("\r\n", "\n").replace("\r", "\n")
