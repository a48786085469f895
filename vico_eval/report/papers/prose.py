"""What a paper's text says about its tables' numbers, and which of the printed numbers that fits.

Declared in `results/published/<paper>/prose.yaml`, where a statement was looked up: a few words of it, and the rows and
quantities that it is about. Where tables print a number twice, the statement can tell which of them the authors used.
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
    """A number in a paper's text that its tables must give."""

    says: str
    """A few words of the text, the number among them."""

    value: str = Field(pattern=r"\d+\.\d+")
    """The number as the text has it; its decimals count."""

    measure: Literal["difference", "share"]
    """The first row less the second, in points, or as a percentage of it."""

    row: str
    """As the audit names it."""

    against: str
    """The second row."""

    quantities: tuple[str, ...]
    """Their mean is compared; usually one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """One way to read a statement: where tables print several values of a number, one of them each."""

    chosen: Mapping[str, float]
    """Only the numbers that tables print in several ways: the value taken, by row, quantity and table."""

    made: float
    """What the statement's number would be."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadStatement:
    """A statement with all ways to read it."""

    statement: Statement
    readings: tuple[Reading, ...]

    @property
    def fitting(self) -> tuple[Reading, ...]:
        """The readings that give the statement's number, rounded or cut off."""
        return tuple(reading for reading in self.readings if _fits(self.statement.value, reading.made))

    @property
    def definition(self) -> str:
        """What is compared, in words."""
        what = "difference" if self.statement.measure == "difference" else "percentage"
        of = ", ".join(self.statement.quantities)
        mean = "mean of " if len(self.statement.quantities) > 1 else ""
        return f"{what}: {mean}{of}, {self.statement.row} against {self.statement.against}"


def read_prose(folder: Path, paper: str, printed: Mapping[tuple[str, str], Mapping[str, float]]) -> list[ReadStatement]:
    """The statements of a paper's text that are on record, read with all numbers that its tables print.

    Args:
        folder: the papers' numbers, a folder a paper.
        paper: which one; one without `prose.yaml` has no statements.
        printed: by row and quantity, the value of each table that prints it.

    Raises:
        ConfigError: the file doesn't fit.
        ReportError: a statement is about a number that no table has.
    """
    path = paper_folder(folder, paper) / PROSE
    if not path.is_file():
        return []
    statements = read_yaml(TypeAdapter(list[Statement]), path)
    return [ReadStatement(statement=one, readings=_readings(one, printed, path)) for one in statements]


def _readings(
    statement: Statement, printed: Mapping[tuple[str, str], Mapping[str, float]], path: Path
) -> tuple[Reading, ...]:
    """Each combination of the different values that tables print of the statement's numbers."""
    keys = [(row, quantity) for row in (statement.row, statement.against) for quantity in statement.quantities]
    if unknown := [", ".join(key) for key in keys if key not in printed]:
        raise ReportError(f"{path}: no table prints {'; '.join(unknown)}, which {statement.says!r} is about.")
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
