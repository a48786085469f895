"""Where a paper's numbers do not agree: averages with their cells, one quantity of several tables, text with tables.

What is known of it lies beside the numbers (`results/published/exceptions.yaml`), each with its reason.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from vico_eval.report.papers.layout import PAPERS, layouts
from vico_eval.report.papers.printed import PrintedRow, PublishedTable, own_averages, read_table, score
from vico_eval.report.papers.prose import ReadStatement, read_prose
from vico_eval.report.stats.retention import AVERAGE
from vico_eval.schemas import Closed
from vico_eval.yaml_files import read_yaml

EXCEPTIONS = "exceptions.yaml"

# Sums of printed decimals are off by far less; what is exactly at a tolerance agrees.
_ROUNDING = 1e-9


class KnownException(Closed):
    """A disagreement that was looked into."""

    paper: str
    what: str
    """As `Finding.what`."""

    values: dict[str, float]
    """As `Finding.values`, to three decimals."""

    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """A number that a paper gives in two ways."""

    paper: str
    what: str
    """Table, row and average, row and quantity where several tables print it, or the words of the text."""

    values: Mapping[str, float]
    """`printed` and `recomputed`, or by table; unrounded."""

    definition: str

    @property
    def difference(self) -> float:
        """Of the last value from the first."""
        first, *_, last = self.values.values()
        return last - first

    def is_as(self, known: KnownException) -> bool:
        """Whether this is the known one, its values included."""
        same = (self.paper, self.what, set(self.values)) == (known.paper, known.what, set(known.values))
        return same and all(abs(self.values[name] - value) < 6e-4 for name, value in known.values.items())


@dataclass(frozen=True, kw_only=True, slots=True)
class Audit:
    """What the audit looked at and what it found."""

    num_averages: int
    """Averages recomputed from scores."""

    without_scores: int
    """Printed averages whose scores are nowhere in the paper."""

    num_shared: int
    """Quantities that several tables of a paper print."""

    statements: tuple[tuple[str, ReadStatement], ...]
    """What the papers' texts say of their numbers, with the paper."""

    findings: tuple[tuple[Finding, KnownException | None], ...]
    """Each with the exception that it is, if it is known."""

    missing: tuple[KnownException, ...]
    """Known exceptions that were not found."""

    @property
    def unknown(self) -> tuple[Finding, ...]:
        """Findings that no exception has."""
        return tuple(finding for finding, known in self.findings if known is None)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Recomputed:
    average: float
    definition: str


def audit_published(folder: Path) -> Audit:
    """Compares the papers' numbers with themselves and with the exceptions that are known.

    Args:
        folder: the papers' numbers, a folder a paper, and the exceptions.

    Raises:
        ReportError: a CSV is missing or malformed.
        ConfigError: the exceptions are.
    """
    findings: list[Finding] = []
    statements: list[tuple[str, ReadStatement]] = []
    num_averages = without_scores = num_shared = 0
    for paper in PAPERS:
        tables = [read_table(folder, layout) for layout in layouts(paper)]
        for table, row, candidates in _averages(tables):
            num_averages += bool(candidates)
            without_scores += not candidates
            finding = _compare(table, row, candidates)
            findings += [finding] if finding else []
        printed = _by_quantity(tables)
        shared = {", ".join(key): values for key, values in printed.items() if len(values) > 1}
        num_shared += len(shared)
        for what, values in shared.items():
            if len(set(values.values())) > 1:
                definition = "one quantity of one row, printed in several tables"
                findings.append(Finding(paper=paper, what=what, values=values, definition=definition))
        for read in read_prose(folder, paper, printed):
            statements.append((paper, read))
            findings += [] if read.fitting else [_unfitting(paper, read)]
    known = read_yaml(TypeAdapter(list[KnownException]), folder / EXCEPTIONS)
    matched = tuple((finding, next((entry for entry in known if finding.is_as(entry)), None)) for finding in findings)
    return Audit(
        num_averages=num_averages,
        without_scores=without_scores,
        num_shared=num_shared,
        statements=tuple(statements),
        findings=matched,
        missing=tuple(entry for entry in known if not any(finding.is_as(entry) for finding in findings)),
    )


def _averages(tables: Sequence[PublishedTable]) -> Iterator[tuple[PublishedTable, PrintedRow, list[_Recomputed]]]:
    """Every row with a printed average, and what recomputing gives: nothing where the paper has no scores for it."""
    for table in tables:
        average = table.layout.average
        if average is None:
            continue
        own = own_averages(table)
        for row in table.rows:
            if AVERAGE not in row.numbers:
                continue
            if own:
                value = own[row.name, row.kind]
                definition = "plain mean of the ratios" if row.kind == "ratio" else average.definition
                # An average with a missing cell can't be recomputed.
                found = [] if math.isnan(value) else [_Recomputed(average=value, definition=definition)]
            else:
                found = list(_from_other_tables(row, table, tables))
            yield table, row, found


def _from_other_tables(
    row: PrintedRow, table: PublishedTable, tables: Sequence[PublishedTable]
) -> Iterator[_Recomputed]:
    """The plain mean from each table of the paper that has all its scores for the same system."""
    average = table.layout.average
    if average is None:
        return
    for other in tables:
        for candidate in other.rows:
            numbers = candidate.numbers
            if _system(candidate, other) == _system(row, table) and set(average.benchmarks) <= numbers.keys():
                mean = sum(score(numbers[key]) for key in average.benchmarks) / len(average.benchmarks)
                definition = f"{average.definition}, from the scores of table {other.layout.number}"
                yield _Recomputed(average=mean, definition=definition)


def _compare(table: PublishedTable, row: PrintedRow, candidates: Sequence[_Recomputed]) -> Finding | None:
    """What does not agree. Where tables print different scores, as a finding says, one of them is enough to agree."""
    average = table.layout.average
    if average is None or not candidates:
        return None
    printed = float(row.numbers[AVERAGE].value)
    if any(abs(candidate.average - printed) <= average.tolerance + _ROUNDING for candidate in candidates):
        return None
    nearest = min(candidates, key=lambda candidate: abs(candidate.average - printed))
    of = f"{AVERAGE} of its ratios" if row.kind == "ratio" else AVERAGE
    return Finding(
        paper=table.layout.paper,
        what=f"table {table.layout.number}, {row.name}, {of}",
        values={"printed": printed, "recomputed": nearest.average},
        definition=nearest.definition,
    )


def _unfitting(paper: str, read: ReadStatement) -> Finding:
    value = float(read.statement.value)
    nearest = min((reading.made for reading in read.readings), key=lambda made: abs(made - value))
    return Finding(
        paper=paper,
        what=f"text, “{read.statement.says}”",
        values={"printed": value, "recomputed": nearest},
        definition=read.definition,
    )


def _by_quantity(tables: Sequence[PublishedTable]) -> dict[tuple[str, str], dict[str, float]]:
    """The printed values by table, for each quantity of a system."""
    values: dict[tuple[str, str], dict[str, float]] = {}
    for table in tables:
        for row in table.rows:
            for key, number in row.numbers.items():
                what = (_system(row, table), _quantity(key, row, table))
                values.setdefault(what, {})[f"table {table.layout.number}"] = float(number.value)
    return values


def _system(row: PrintedRow, table: PublishedTable) -> str:
    return table.layout.systems.get(row.name, row.name)


def _quantity(key: str, row: PrintedRow, table: PublishedTable) -> str:
    # Averages over other benchmarks are other quantities.
    average = table.layout.average
    of = f" of {', '.join(average.benchmarks)}" if key == AVERAGE and average is not None else ""
    return f"{key}{of}{', ratio' if row.kind == 'ratio' else ''}"
