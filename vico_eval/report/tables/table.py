"""A table ready to be written, unrounded: its rows, and a paper's beneath them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import pandas as pd

AVERAGE_DIGITS = 1
"""Of a relative retention, as it is printed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One line of a table."""

    title: str
    kind: Literal["score", "ratio"]
    """Scores with their retention, or the compressed-tile ratio of the row above."""

    values: Mapping[str, float]
    """By column, `Avg.` included; NaN prints as a dash."""

    failed: frozenset[str] = frozenset()
    """Columns without a value because documents could not be answered."""

    competes: bool
    """May be among the best of a column in which it saves tokens. The baseline never competes, nor a run without a
    record."""

    saves_nothing: frozenset[str] = frozenset()
    """Columns in which it has no fewer visual tokens than the baseline, or it isn't known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedRow:
    """A paper's numbers of a measured row's system, to be printed beneath it; never compared with what was measured."""

    title: str
    """Of the measured row."""

    kind: Literal["score", "ratio"]
    values: Mapping[str, float]
    """By column, `Avg.` included, which is the paper's own where it is of the table's columns, and otherwise recomputed
    over these; NaN where the paper has none."""

    recomputed: float = float("nan")
    """The average that its cells make, where the paper prints another."""

    difference: float = float("nan")
    """The measured mean score less the paper's, in points; of a row of scores."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CostColumn:
    """A column of what a document of a row costs."""

    title: str
    meaning: str
    """In a footnote's words."""

    values: Mapping[str, float]
    """By row title; rows that don't say it are missing or NaN."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """What the writers print. Unrounded; `digits` says how many decimals a benchmark's scores have."""

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
    """By row title, its budget in percent of the baseline's visual tokens (`vico_eval.report.budgets.groups`): rows of
    the same number have the same one; NaN where it isn't known. Empty for a published table."""

    methods: Mapping[str, str] = field(default_factory=dict)
    """By row title, the title less its budget, if methods were run at several: the table is then grouped by budget."""

    costs: tuple[CostColumn, ...] = ()
    """Those that were asked for."""

    score_spread: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Sample standard deviation of a score over a row's runs, points, by row title and column, if there are several."""

    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """95% interval of a retention, percent, by row title; of rows that are compared."""

    significant: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """By row title, the benchmarks on which it differs from the baseline."""

    comparison: tuple[str, ...] = ()
    """How each row compares with the baseline, in sentences; empty for a published table."""

    pairs: tuple[str, ...] = ()
    """How rows compare with each other, in sentences; empty unless it was asked for."""

    best: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """By column, the titles of the rows that are bold (`vico_eval.report.paired.best`)."""

    published: tuple[PublishedRow, ...] = ()
    """A paper's rows, in the order of the measured ones; empty unless they were asked for."""

    published_place: str = ""
    """File of the paper's numbers."""

    def retention(self, column: str) -> dict[str, float]:
        """Each row's score of a column as a percentage of the baseline's, by row title; NaN where one of both is
        unknown, or the baseline's is zero."""
        scores = {row.title: row.values[column] for row in self.rows if row.kind == "score"}
        base = scores.get(self.baseline, math.nan)
        return {title: 100 * score / base if base > 0 else math.nan for title, score in scores.items()}

    def with_note(self, note: str) -> "Table":
        """The same table with one more note."""
        return replace(self, notes=(*self.notes, note))
