"""An unrounded table: measured rows, with a paper's rows below them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import pandas as pd

AVERAGE_DIGITS = 1
"""Number of decimals of a printed relative retention."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One line of a table."""

    title: str
    kind: Literal["score", "ratio"]
    """Scores with their retention, or the compressed-tile ratios of the row above."""

    values: Mapping[str, float]
    """Values by column, including `Avg.`; NaN is printed as a dash."""

    failed: frozenset[str] = frozenset()
    """Columns without a value because documents could not be answered."""

    competes: bool
    """The row can be the best of a column in which it saves tokens. The baseline and runs without a record never
    compete."""

    saves_nothing: frozenset[str] = frozenset()
    """Columns in which the row does not have fewer visual tokens than the baseline, or its number is unknown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedRow:
    """A paper's numbers for the system of a measured row, printed below it and never compared with it."""

    title: str
    """Title of the measured row."""

    kind: Literal["score", "ratio"]
    values: Mapping[str, float]
    """Values by column, including `Avg.`, which is the paper's own if it covers the table's columns and is otherwise
    recomputed over them; NaN where the paper has none."""

    recomputed: float = float("nan")
    """The average recomputed from the cells, if the paper prints a different one."""

    difference: float = float("nan")
    """The measured mean score minus the paper's, in points; only for rows of scores."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CostColumn:
    """A column with a row's cost per document."""

    title: str
    meaning: str
    """Explanation in a footnote."""

    values: Mapping[str, float]
    """Costs by row title; unknown costs are missing or NaN."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """The table that writers print, unrounded; `digits` has the number of decimals for each benchmark."""

    caption: str
    columns: tuple[str, ...]
    digits: Mapping[str, int]
    rows: tuple[Row, ...]
    baseline: str
    notes: tuple[str, ...]
    summary: pd.DataFrame
    """By row title: mean_score, retention, retention_se, retention_spread, difference, difference_se, tile_ratio,
    token_share, documents, runs. Empty for a published table, which has no documents."""

    budgets: Mapping[str, float] = field(default_factory=dict)
    """Budgets in percent of the baseline's visual tokens, by row title (`vico_eval.report.budgets.groups`); rows with
    equal numbers share a budget, and NaN is unknown. Empty for a published table."""

    methods: Mapping[str, str] = field(default_factory=dict)
    """Titles without budgets, by row title, if methods were run at several budgets; the table is then grouped by
    budget."""

    costs: tuple[CostColumn, ...] = ()
    """Requested cost columns."""

    score_spread: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Sample standard deviation of a score over a row's runs, points, by row title and column, if there are several."""

    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """95% interval of the retention, percent, by title of the compared rows."""

    significant: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Benchmarks on which a row differs significantly from the baseline, by row title."""

    comparison: tuple[str, ...] = ()
    """Sentences that compare each row with the baseline; empty for a published table."""

    pairs: tuple[str, ...] = ()
    """Sentences that compare rows with each other; empty unless requested."""

    best: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Titles of the bold rows, by column (`vico_eval.report.paired.best`)."""

    published: tuple[PublishedRow, ...] = ()
    """A paper's rows, in the order of the measured ones; empty unless requested."""

    published_place: str = ""
    """File of the paper's numbers."""

    def retention(self, column: str) -> dict[str, float]:
        """Each row's score in a column as a percentage of the baseline's, by row title; NaN if either is unknown or the
        baseline's is zero."""
        scores = {row.title: row.values[column] for row in self.rows if row.kind == "score"}
        base = scores.get(self.baseline, math.nan)
        return {title: 100 * score / base if base > 0 else math.nan for title, score in scores.items()}

    def with_note(self, note: str) -> "Table":
        """The same table with one more note."""
        return replace(self, notes=(*self.notes, note))
