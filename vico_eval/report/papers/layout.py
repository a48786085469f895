"""What a paper's table looks like, apart from its numbers: rows, columns and the definition of its average.

Declared in `results/published/<paper>/tables.yaml`, beside the numbers.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, TypeAdapter

from vico_eval.errors import ConfigError, unknown_name
from vico_eval.paths import results_dir
from vico_eval.report.stats.retention import AVERAGE
from vico_eval.schemas import Closed
from vico_eval.yaml_files import read_yaml

PAPERS = {"vico": "ViCO", "internvl-x": "InternVL-X", "tops": "TOPS", "avtp": "AVTP"}


class Head(Closed):
    """A column that says what a row is."""

    title: str
    source: str
    """Which of the row's fields; empty where a row has none of the name."""

    names: Mapping[str, str] = Field(default_factory=dict)
    """What to print in place of a field's value."""

    is_merged: bool = False
    """Said once for neighbouring rows of one value."""


class Quantity(Closed):
    """A column of numbers."""

    benchmark: str
    """As the CSV names it; `Avg` is the table's average."""

    setting: str | None = None
    """Where a benchmark has several columns: which; None: whatever setting the CSV names."""

    title: str = ""
    """Printed; by default the benchmark."""

    group: str = ""
    """Stands above the titles of its columns."""

    unit: str = ""
    """Printed behind each number."""

    is_score: bool = True
    """The highest is the best; otherwise nothing is printed bold."""

    @property
    def key(self) -> str:
        """The quantity's name within its paper, and the same in all tables of the paper."""
        return AVERAGE if self.benchmark == "Avg" else f"{self.benchmark} {self.setting or ''}".strip()


class Average(Closed):
    """What a table's average is of; that of a ratio row is always the plain mean."""

    benchmarks: tuple[str, ...]
    """Keys of the quantities, of this table or, where it prints averages only, of the paper's others."""

    baseline: str | None = None
    """The variant whose mean counts as 100%; None: the plain mean, in points."""

    digits: int
    tolerance: float
    """How far the printed average may be from the recomputed one."""

    stated: str = ""
    """In words, where the paper's average is not known to be ours."""

    @property
    def definition(self) -> str:
        """In words."""
        if self.stated:
            return self.stated
        if self.baseline is None:
            return f"plain mean of {', '.join(self.benchmarks)}"
        scale = " (MME divided by 28)" if "MME" in self.benchmarks else ""
        return f"100 × mean score / mean score of {self.baseline}{scale}"


def _quantity(given: object) -> object:
    return {"benchmark": given} if isinstance(given, str) else given


class Layout(Closed):
    """One table of a paper."""

    paper: str
    number: int
    caption: str
    heads: tuple[Head, ...]
    quantities: tuple[Annotated[Quantity, BeforeValidator(_quantity)], ...]
    """Columns of numbers; one that is a benchmark and nothing else is given by its name."""

    average: Average | None = None
    group_by: str = "model"
    """Field whose change begins a group of rows: a rule stands before it, and bold is the best within it."""

    group_starts: tuple[str, ...] = ()
    """Only these values of the field begin a group."""

    references: tuple[str, ...] = ()
    """Variants that are there to be compared with; never the best."""

    remark: str | None = None
    """A note of the CSV that makes a row of its own, as the setting in which it was measured."""

    systems: Mapping[str, str] = Field(default_factory=dict)
    """Rows that another table of the paper has under another name: that name, by the row's name here."""

    rows_of: Mapping[str, Mapping[str, str]] = Field(default_factory=dict)
    """Rows that are a system of ours: the fields that tell them, by the system's name. Empty where the table has no
    scores that a measured table could have."""

    model_field: str = "model"
    """Which field tells rows of one system from each other. A row without it, such as the one without compression
    among rows of several budgets, belongs to each of its values."""

    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """As `ViCO, table 3`."""
        return f"{PAPERS[self.paper]}, table {self.number}"


def published_dir() -> Path:
    """The papers' numbers, a folder a paper."""
    return results_dir() / "published"


def paper_folder(folder: Path, paper: str) -> Path:
    """Where the numbers of a paper lie beneath those of all papers."""
    return folder / paper.replace("-", "_")


def layouts(paper: str | None = None, number: int | None = None) -> list[Layout]:
    """The tables of a paper or of all papers, all of them or those of a number.

    Raises:
        ConfigError: there is no such paper or table, or a file of theirs doesn't fit.
    """
    if paper is not None and paper not in PAPERS:
        raise unknown_name("paper", paper, PAPERS)
    own = [layout for name in PAPERS if paper in (None, name) for layout in _read_layouts(name)]
    chosen = [layout for layout in own if number in (None, layout.number)]
    if not chosen:
        known = ", ".join(f"{layout.number} ({PAPERS[layout.paper]})" for layout in own)
        raise ConfigError(f"There is no published table {number}; known are {known}.")
    return chosen


@cache  # a report asks more than once, and YAML takes its time
def _read_layouts(paper: str) -> tuple[Layout, ...]:
    return read_yaml(TypeAdapter(tuple[Layout, ...]), paper_folder(published_dir(), paper) / "tables.yaml")
