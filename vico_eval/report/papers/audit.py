"""Find inconsistent numbers in a paper: averages and their cells, a quantity in several tables, the text and the
tables.

Known inconsistencies are listed with their reasons in `results/published/exceptions.yaml`.
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

# Sums of printed decimals are off by far less; a difference equal to the tolerance counts as agreement.
_ROUNDING = 1e-9


class KnownException(Closed):
    """An inconsistency that was investigated."""

    paper: str
    what: str
    """Same as `Finding.what`."""

    values: dict[str, float]
    """Same as `Finding.values`, to three decimals."""

    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """A number for which a paper gives different values."""

    paper: str
    what: str
    """Table, row and average; row and quantity, if several tables print it; or a quotation of the text."""

    values: Mapping[str, float]
    """`printed` and `recomputed`, or by table; unrounded."""

    definition: str

    @property
    def difference(self) -> float:
        """The last value minus the first."""
        first, *_, last = self.values.values()
        return last - first

    def is_as(self, known: KnownException) -> bool:
        """True if this is the known exception, with the same values."""
        same = (self.paper, self.what, set(self.values)) == (known.paper, known.what, set(known.values))
        return same and all(abs(self.values[name] - value) < 6e-4 for name, value in known.values.items())


@dataclass(frozen=True, kw_only=True, slots=True)
class Audit:
    """Scope and findings of the audit."""

    num_averages: int
    """Number of averages recomputed from scores."""

    without_scores: int
    """Number of printed averages whose scores the paper does not print."""

    num_shared: int
    """Number of quantities printed in several tables of a paper."""

    statements: tuple[tuple[str, ReadStatement], ...]
    """Statements in the papers' texts about their numbers, with the paper."""

    findings: tuple[tuple[Finding, KnownException | None], ...]
    """Findings, each with its known exception or None."""

    missing: tuple[KnownException, ...]
    """Known exceptions without a finding."""

    @property
    def unknown(self) -> tuple[Finding, ...]:
        """Findings without a known exception."""
        return tuple(finding for finding, known in self.findings if known is None)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Recomputed:
    average: float
    definition: str


def audit_published(folder: Path) -> Audit:
    """Check the papers' numbers for consistency, and match the findings with the known exceptions.

    Args:
        folder: the papers' numbers, one folder per paper, and the exceptions.

    Raises:
        ReportError: a CSV is missing or malformed.
        ConfigError: the exceptions are missing or malformed.
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
    """Every row with a printed average, and the recomputed averages; empty if the paper has no scores for it."""
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
    """The plain mean from each table of the paper with all its scores for the same system."""
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
    """The finding if no candidate agrees. If tables print different scores (a finding of its own), one that agrees is
    enough."""
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
    """The printed values by table, for each system and quantity."""
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
    # Averages over different benchmarks are different quantities.
    average = table.layout.average
    of = f" of {', '.join(average.benchmarks)}" if key == AVERAGE and average is not None else ""
    return f"{key}{of}{', ratio' if row.kind == 'ratio' else ''}"
