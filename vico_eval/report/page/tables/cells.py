"""What the page's tables consist of."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class PageCell:
    """A cell as a reader sees it."""

    text: str
    sort: float | str | None
    """What a column is sorted by; None comes last either way."""

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
    """A column behind the rows' titles."""

    title: str
    group: str
    """Columns of one group stand together where a reader chooses them."""

    is_shown: bool = True
    """Until a reader chooses otherwise."""

    is_words: bool = False
    """Whether its cells are text that may take several lines."""


NONE = PageCell(text="", sort=None)
