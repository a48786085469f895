"""Draw all figures of a measured table, in parallel to the other computations of a large report."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import pandas as pd

from vico_eval.errors import ReportError
from vico_eval.report.costs.axis import CostAxis
from vico_eval.report.figures.style import COLUMN, Sheet
from vico_eval.report.read_runs import NUM_WORKERS
from vico_eval.report.tables.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

T = TypeVar("T")

NARROW = "-column"
"""Suffix to the stem of a figure for one column of a page."""

PICTURES = tuple(
    f"{stem}{width}.{kind}"
    for stem in ("retention", "budgets", "benchmarks", "ratios", "scores", "router")
    for width in ("", NARROW)
    for kind in ("pdf", "png")
)
"""Names of all possible figures, at page width and at column width."""


class Drawing(NamedTuple):
    """Style of the figures."""

    is_serif: bool = False
    """Use a Times-like typeface."""

    axis: CostAxis | None = None
    """Horizontal axis of the retention figure in place of visual tokens."""


_PLAIN = Drawing()


class Pictures(NamedTuple):
    """The written files."""

    paths: tuple[Path, ...]
    note: str | None = None
    """Reason that the retention figure is missing."""


def draw_while(
    table: Table, cells: pd.DataFrame, out: Path, work: Callable[[], T], workers: Executor | None, drawing: Drawing
) -> tuple[Pictures, T]:
    """Write the figures that need no comparison to `out`, in parallel to `work` if there are `workers`.

    Args:
        table: the table of measured runs.
        cells: cells of the `Measurements` that it was built from.
        out: an existing folder.
        work: computation for this process.
        workers: processes that draw; None to draw here first.
        drawing: style of the figures.
    """
    if workers is None:
        return write_pictures(table, cells, out, drawing), work()
    # The slowest figures first.
    jobs = [workers.submit(draw, table, cells, out, drawing) for draw in (_scores, _ratios, _retention)]
    done = work()
    scores, ratios, retention = (job.result() for job in jobs)
    return _together(retention, ratios, scores), done


def load_drawing(workers: Executor | None) -> None:
    """Start importing what figures need in `workers`, which takes a second."""
    if workers is not None:
        for _ in range(NUM_WORKERS):
            workers.submit(import_module, "vico_eval.report.figures.router_scores")


def write_pictures(table: Table, cells: pd.DataFrame, out: Path, drawing: Drawing = _PLAIN) -> Pictures:
    """Write the figures of retention, ratios and router scores, as far as there is data for them."""
    return _together(*(draw(table, cells, out, drawing) for draw in (_retention, _ratios, _scores)))


def write_compared(
    table: Table,
    uncertainty: pd.DataFrame,
    calibration: pd.DataFrame | None,
    out: Path,
    workers: Executor | None,
    *,
    is_serif: bool = False,
) -> tuple[Path, ...]:
    """Write the figures with intervals to `out`: benchmarks, and budgets and routers as far as there are any.

    Args:
        table: the table of measured runs.
        uncertainty: result of `vico_eval.report.stats.uncertainty.compare_with_baseline`.
        calibration: result of `vico_eval.report.strata.calibration.router_calibration`.
        out: an existing folder.
        workers: processes that draw; None to draw here.
        is_serif: use a Times-like typeface.
    """
    jobs: list[tuple[Any, ...]] = [(_benchmarks, table, uncertainty, out, is_serif)]
    if table.methods:
        jobs.append((_budgets, table, uncertainty, out, is_serif))
    if calibration is not None:
        jobs.append((_router, calibration, out, is_serif))
    if workers is None:
        written = [draw(*arguments) for draw, *arguments in jobs]
    else:
        written = [done.result() for done in [workers.submit(*job) for job in jobs]]
    return tuple(chain.from_iterable(written))


def _sheets(is_serif: bool) -> dict[str, Sheet]:
    """Page formats of each figure, by suffix of the stem."""
    return {"": Sheet(is_serif=is_serif), NARROW: Sheet(width=COLUMN, is_serif=is_serif)}


def _together(retention: Pictures, *others: Pictures) -> Pictures:
    return retention._replace(paths=retention.paths + tuple(path for each in others for path in each.paths))


# matplotlib takes half a second to load and is not needed to read tables, so the functions that draw import it.
def _retention(table: Table, cells: pd.DataFrame, out: Path, drawing: Drawing) -> Pictures:
    from vico_eval.report.figures.files import write_figure
    from vico_eval.report.figures.retention import draw_retention

    paths: list[Path] = []
    try:
        for ending, sheet in _sheets(drawing.is_serif).items():
            paths += write_figure(draw_retention(table, sheet, drawing.axis), out, f"retention{ending}")
    except ReportError as error:
        return Pictures((), f"No figure: {error}")
    return Pictures(tuple(paths))


def _scores(table: Table, cells: pd.DataFrame, out: Path, drawing: Drawing) -> Pictures:
    from vico_eval.report.figures.router_scores import draw_scores

    return Pictures(_written("scores", partial(draw_scores, table, cells), out, drawing.is_serif))


def _ratios(table: Table, cells: pd.DataFrame, out: Path, drawing: Drawing) -> Pictures:
    from vico_eval.report.figures.dots import draw_ratios

    return Pictures(_written("ratios", partial(draw_ratios, table), out, drawing.is_serif))


def _benchmarks(table: Table, uncertainty: pd.DataFrame, out: Path, is_serif: bool) -> tuple[Path, ...]:
    from vico_eval.report.figures.dots import draw_benchmarks

    return _written("benchmarks", partial(draw_benchmarks, table, uncertainty), out, is_serif)


def _budgets(table: Table, uncertainty: pd.DataFrame, out: Path, is_serif: bool) -> tuple[Path, ...]:
    from vico_eval.report.budgets.picture import draw_budgets

    return _written("budgets", partial(draw_budgets, table, uncertainty), out, is_serif)


def _router(calibration: pd.DataFrame, out: Path, is_serif: bool) -> tuple[Path, ...]:
    from vico_eval.report.strata.picture import draw_calibration

    return _written("router", partial(draw_calibration, calibration), out, is_serif)


def _written(stem: str, draw: Callable[[Sheet], Figure | None], out: Path, is_serif: bool) -> tuple[Path, ...]:
    """Draw a figure and write its files, for each page format on which it fits."""
    from vico_eval.report.figures.files import write_figure

    paths: list[Path] = []
    for ending, sheet in _sheets(is_serif).items():
        if (figure := draw(sheet)) is not None:
            paths += write_figure(figure, out, f"{stem}{ending}")
    return tuple(paths)
