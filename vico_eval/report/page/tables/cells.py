"""Building blocks of the page's tables."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class PageCell:
    """A formatted cell."""

    text: str
    sort: float | str | None
    """Sort key; None comes last in either direction."""

    below: str = ""
    is_bold: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class PageRow:
    """A line of a table."""

    title: str
    cells: tuple[PageCell, ...]
    is_baseline: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class PageColumn:
    """A column after the rows' titles."""

    title: str
    group: str
    """Group under which the column is listed for selection."""

    is_shown: bool = True
    """Shown by default."""

    is_words: bool = False
    """The cells are text that may wrap."""


NONE = PageCell(text="", sort=None)
