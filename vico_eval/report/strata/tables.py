"""Tables of strata: one per benchmark with categories, and one for the hard documents of all benchmarks."""

import math
from collections.abc import Iterator, Sequence

import pandas as pd

from vico_eval.report.strata.by_stratum import CATEGORY, HARD
from vico_eval.report.tables.grid import DASH, Column, Grid, GridCell, Line, grid_to_markdown
from vico_eval.report.tables.latex_table import grid_to_latex

_OF_CATEGORIES = (
    "Mean document scores, 0-100; the first line has each category's number of documents. If a benchmark's score is "
    "not such a mean (F1, for instance), the categories do not average to it. Bold marks differences from {baseline} "
    "whose 95% interval excludes 0, without correction for the number of categories."
)
_OF_HARD = (
    "Percentage of a group's documents that a row answers, over all benchmarks; the first line has each group's number "
    "of documents. {baseline} answers all of them, so compare rows with each other and not with 100. A row that "
    "defines a group has no score in it."
)


def strata_grids(strata: pd.DataFrame, rows: Sequence[str], benchmarks: Sequence[str], baseline: str) -> list[Grid]:
    """Lay out the result of `vico_eval.report.strata.by_stratum`, categories first."""
    return [*_categories(strata, rows, benchmarks, baseline), *_hard(strata, rows, baseline)]


def strata_markdown(grids: Sequence[Grid]) -> str:
    """The tables in Markdown, one below the other."""
    return "\n".join(map(grid_to_markdown, grids))


def strata_latex(grids: Sequence[Grid], label: str) -> str:
    """The tables as LaTeX floats, labelled `label-1` and so on."""
    return "\n".join(grid_to_latex(grid, f"{label}-{number}") for number, grid in enumerate(grids, start=1))


def _categories(strata: pd.DataFrame, rows: Sequence[str], benchmarks: Sequence[str], baseline: str) -> Iterator[Grid]:
    of_categories = strata[strata["kind"] == CATEGORY]
    for benchmark in benchmarks:
        own = of_categories[of_categories["benchmark"] == benchmark]
        if own.empty:
            continue
        sizes = own.drop_duplicates("stratum").set_index("stratum")["documents"]
        by_place = {(line.row, line.stratum): line for line in own.itertuples()}
        lines = [
            Line(
                titles=(GridCell(text=row),),
                cells=tuple(_score(by_place.get((row, stratum))) for stratum in sizes.index),
            )
            for row in rows
            if (own["row"] == row).any()
        ]
        yield Grid(
            caption=f"{benchmark} by category",
            heads=("Method",),
            columns=tuple(Column(title=str(stratum)) for stratum in sizes.index),
            lines=(_sizes(sizes.tolist()), *lines),
            notes=(_OF_CATEGORIES.format(baseline=baseline),),
        )


def _hard(strata: pd.DataFrame, rows: Sequence[str], baseline: str) -> Iterator[Grid]:
    hard = strata[strata["kind"] == HARD]
    if hard.empty:
        return
    names = list(dict.fromkeys(hard["stratum"]))
    judged = hard[hard["row"].notna()]
    sizes = judged.groupby(["stratum", "row"])["documents"].sum()
    answered = (judged["score"] * judged["documents"]).groupby([judged["stratum"], judged["row"]]).sum() / sizes
    lines = []
    for row in rows:
        cells = []
        for name in names:
            size = int(sizes.get((name, row), 0))
            # The documents that all other methods lose differ by row.
            number = f" ({size})" if len(set(sizes.get(name, ()))) > 1 else ""
            cells.append(GridCell(text=f"{answered[name, row]:.1f}{number}" if size else DASH))
        if any(cell.text != DASH for cell in cells):
            lines.append(Line(titles=(GridCell(text=row),), cells=tuple(cells)))
    counts = [_count(hard[hard["stratum"] == name]) for name in names]
    yield Grid(
        caption="Hard documents",
        heads=("Method",),
        columns=tuple(Column(title=name[0].upper() + name[1:]) for name in names),
        lines=(_sizes(counts), *lines),
        notes=(_OF_HARD.format(baseline=baseline),),
    )


def _count(own: pd.DataFrame) -> int | None:
    """Number of documents in a group; None if it differs by row."""
    by_row = own.groupby(own["row"].astype(object), dropna=False)["documents"].sum()
    return int(by_row.iloc[0]) if len(set(by_row)) == 1 else None


def _sizes(numbers: Sequence[int | None]) -> Line:
    cells = tuple(GridCell(text="" if number is None else str(number)) for number in numbers)
    return Line(titles=(GridCell(text="Documents"),), cells=cells, is_italic=True, rule_after=True)


def _score(line: object) -> GridCell:
    score, low, high = (float(getattr(line, name, math.nan)) for name in ("score", "low", "high"))
    return GridCell(text=DASH if math.isnan(score) else f"{score:.1f}", is_bold=low > 0 or high < 0)
