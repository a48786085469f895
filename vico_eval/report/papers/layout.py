"""Layout of a paper's tables: rows, columns and the definition of the average.

Declared in `results/published/<paper>/tables.yaml`, next to the numbers.
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
    """A column that identifies a row."""

    title: str
    source: str
    """Field of the row to show; the cell is empty if the row lacks it."""

    names: Mapping[str, str] = Field(default_factory=dict)
    """Replacements to print for the field's values."""

    is_merged: bool = False
    """Print the value once for consecutive rows that share it."""


class Quantity(Closed):
    """A column of numbers."""

    benchmark: str
    """Benchmark name in the CSV; `Avg` is the table's average."""

    setting: str | None = None
    """Selects the column of a benchmark with several; None matches any setting in the CSV."""

    title: str = ""
    """Printed title; by default the benchmark."""

    group: str = ""
    """Heading above the titles of a group of columns."""

    unit: str = ""
    """Unit printed after each number."""

    is_score: bool = True
    """Higher is better, so the highest is bold; otherwise nothing is bold."""

    @property
    def key(self) -> str:
        """Name of the quantity, the same in all tables of a paper."""
        return AVERAGE if self.benchmark == "Avg" else f"{self.benchmark} {self.setting or ''}".strip()


class Average(Closed):
    """Definition of a table's average; for ratio rows it is always the plain mean."""

    benchmarks: tuple[str, ...]
    """Keys of the averaged quantities, in this table or, if it prints only averages, in the paper's other tables."""

    baseline: str | None = None
    """Variant whose mean counts as 100%; None for the plain mean, in points."""

    digits: int
    tolerance: float
    """Largest accepted difference between the printed and the recomputed average."""

    stated: str = ""
    """Description, if the paper's average may differ from ours."""

    @property
    def definition(self) -> str:
        """The definition as text."""
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
    """Columns of numbers; a name stands for a column with only a benchmark."""

    average: Average | None = None
    group_by: str = "model"
    """Field whose change starts a new group of rows, which has a rule above it and its own best rows."""

    group_starts: tuple[str, ...] = ()
    """If set, only these values of the field start a group."""

    references: tuple[str, ...] = ()
    """Reference variants, which are never bold."""

    remark: str | None = None
    """Note in the CSV that distinguishes a row, such as the setting of the measurement."""

    systems: Mapping[str, str] = Field(default_factory=dict)
    """Names in other tables of the paper, by this table's row name, if they differ."""

    rows_of: Mapping[str, Mapping[str, str]] = Field(default_factory=dict)
    """Fields that identify the rows of our systems, by system. Empty if the table has no scores that we could
    measure."""

    model_field: str = "model"
    """Field that distinguishes rows of one system. A row without it, such as the uncompressed one among rows at several
    budgets, belongs to each of its values."""

    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Title such as `ViCO, table 3`."""
        return f"{PAPERS[self.paper]}, table {self.number}"


def published_dir() -> Path:
    """The folder of the papers' numbers, with one subfolder per paper."""
    return results_dir() / "published"


def paper_folder(folder: Path, paper: str) -> Path:
    """The folder of a paper's numbers within `folder`."""
    return folder / paper.replace("-", "_")


def layouts(paper: str | None = None, number: int | None = None) -> list[Layout]:
    """The layouts of a paper's tables, or of all papers; limited to a table number if given.

    Raises:
        ConfigError: the paper or table is unknown, or its file doesn't fit the schema.
    """
    if paper is not None and paper not in PAPERS:
        raise unknown_name("paper", paper, PAPERS)
    own = [layout for name in PAPERS if paper in (None, name) for layout in _read_layouts(name)]
    chosen = [layout for layout in own if number in (None, layout.number)]
    if not chosen:
        known = ", ".join(f"{layout.number} ({PAPERS[layout.paper]})" for layout in own)
        raise ConfigError(f"There is no published table {number}; known are {known}.")
    return chosen


@cache  # a report needs them several times, and parsing YAML is slow
def _read_layouts(paper: str) -> tuple[Layout, ...]:
    return read_yaml(TypeAdapter(tuple[Layout, ...]), paper_folder(published_dir(), paper) / "tables.yaml")
