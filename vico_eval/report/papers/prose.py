"""Check statements in a paper's text against the numbers in its tables.

Statements are declared in `results/published/<paper>/prose.yaml`: a few words of each, and the rows and quantities that
it is about. If tables print different values for a number, a statement can show which one the authors used.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Literal

from pydantic import Field, TypeAdapter

from vico_eval.errors import ReportError
from vico_eval.report.papers.layout import paper_folder
from vico_eval.schemas import Closed
from vico_eval.yaml_files import read_yaml

PROSE = "prose.yaml"


class Statement(Closed):
    """A number in a paper's text that must follow from its tables."""

    says: str
    """A short quotation that contains the number."""

    value: str = Field(pattern=r"\d+\.\d+")
    """The number as printed in the text; its number of decimals matters."""

    measure: Literal["difference", "share"]
    """`difference`: first row minus second, in points. `share`: first row as a percentage of the second."""

    row: str
    """Name of the row in the audit."""

    against: str
    """Name of the second row."""

    quantities: tuple[str, ...]
    """Quantities whose mean is compared; usually one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """One interpretation of a statement, with one choice for each number that tables print with several values."""

    chosen: Mapping[str, float]
    """Chosen values, by row, quantity and table; only for numbers with several printed values."""

    made: float
    """The resulting value of the statement's number."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadStatement:
    """A statement with all its interpretations."""

    statement: Statement
    readings: tuple[Reading, ...]

    @property
    def fitting(self) -> tuple[Reading, ...]:
        """The readings that give the statement's number, rounded or truncated."""
        return tuple(reading for reading in self.readings if _fits(self.statement.value, reading.made))

    @property
    def definition(self) -> str:
        """The comparison as text."""
        what = "difference" if self.statement.measure == "difference" else "percentage"
        of = ", ".join(self.statement.quantities)
        mean = "mean of " if len(self.statement.quantities) > 1 else ""
        return f"{what}: {mean}{of}, {self.statement.row} against {self.statement.against}"


def read_prose(folder: Path, paper: str, printed: Mapping[tuple[str, str], Mapping[str, float]]) -> list[ReadStatement]:
    """Read a paper's recorded statements, and evaluate them with all numbers that its tables print.

    Args:
        folder: the papers' numbers, one folder per paper.
        paper: name of the paper; without `prose.yaml` it has no statements.
        printed: the value in each table that prints it, by row and quantity.

    Raises:
        ConfigError: the file doesn't fit the schema.
        ReportError: a statement refers to a number that no table has.
    """
    path = paper_folder(folder, paper) / PROSE
    if not path.is_file():
        return []
    statements = read_yaml(TypeAdapter(list[Statement]), path)
    return [ReadStatement(statement=one, readings=_readings(one, printed, path)) for one in statements]


def _readings(
    statement: Statement, printed: Mapping[tuple[str, str], Mapping[str, float]], path: Path
) -> tuple[Reading, ...]:
    """All combinations of the different printed values of the statement's numbers."""
    keys = [(row, quantity) for row in (statement.row, statement.against) for quantity in statement.quantities]
    if unknown := [", ".join(key) for key in keys if key not in printed]:
        raise ReportError(f"{path}: no table prints {'; '.join(unknown)}, to which {statement.says!r} refers.")
    # Tables that print the same value are one choice.
    choices = [{value: table for table, value in printed[key].items()} for key in keys]
    number = len(statement.quantities)
    found = []
    for values in product(*choices):
        first, second = sum(values[:number]) / number, sum(values[number:]) / number
        found.append(
            Reading(
                chosen={
                    f"{', '.join(key)}, {choice[value]}": value
                    for key, choice, value in zip(keys, choices, values, strict=True)
                    if len(choice) > 1
                },
                made=first - second if statement.measure == "difference" else 100 * first / second,
            )
        )
    return tuple(found)


def _fits(text: str, made: float) -> bool:
    value, unit = float(text), 10.0 ** -len(text.partition(".")[2])
    # Sums of printed decimals are off by far less than the margin.
    return value - unit / 2 - 1e-9 <= made < value + unit - 1e-9
