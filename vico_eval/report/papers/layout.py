"""What a paper's table looks like, apart from its numbers: rows, columns and the definition of its average."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from vico_eval.report.stats.retention import AVERAGE

PAPERS = {"vico": "ViCO", "internvl-x": "InternVL-X"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Head:
    """A column that says what a row is."""

    title: str
    source: str
    """Which of the row's fields."""

    names: Mapping[str, str] = field(default_factory=dict)
    """What to print in place of a field's value."""

    is_merged: bool = False
    """Said once for neighbouring rows of one value."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Quantity:
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Average:
    """What a table's average is of; that of a ratio row is always the plain mean."""

    benchmarks: tuple[str, ...]
    """Keys of the quantities, of this table or, where it prints averages only, of the paper's others."""

    baseline: str | None = None
    """The variant whose mean counts as 100%; None: the plain mean, in points."""

    digits: int
    tolerance: float
    """How far the printed average may be from the recomputed one."""

    @property
    def definition(self) -> str:
        """In words."""
        if self.baseline is None:
            return f"plain mean of {', '.join(self.benchmarks)}"
        scale = " (MME divided by 28)" if "MME" in self.benchmarks else ""
        return f"100 × mean score / mean score of {self.baseline}{scale}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """One table of a paper."""

    paper: str
    number: int
    caption: str
    heads: tuple[Head, ...]
    quantities: tuple[Quantity, ...]
    average: Average | None = None
    group_by: str = "model"
    """Field whose change begins a group of rows: a rule stands before it, and bold is the best within it."""

    group_starts: tuple[str, ...] = ()
    """Only these values of the field begin a group."""

    references: tuple[str, ...] = ()
    """Variants that are there to be compared with; never the best."""

    remark: str | None = None
    """A note of the CSV that makes a row of its own, as the setting in which it was measured."""

    systems: Mapping[str, str] = field(default_factory=dict)
    """Rows that another table of the paper has under another name: that name, by the row's name here."""

    rows_of: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Rows that are a system of ours: the fields that tell them, by the system's name. Empty where the table has no
    scores that a measured table could have."""

    model_field: str = "model"
    """Which field tells rows of one system from each other."""

    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """As `ViCO, table 3`."""
        return f"{PAPERS[self.paper]}, table {self.number}"
