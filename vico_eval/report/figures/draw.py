"""All pictures of a measured table, drawn while the rest of a large report is computed."""

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
"""Behind the stem of a picture that is for one column of a page."""

PICTURES = tuple(
    f"{stem}{width}.{kind}"
    for stem in ("retention", "budgets", "benchmarks", "ratios", "scores", "router")
    for width in ("", NARROW)
    for kind in ("pdf", "png")
)
"""Names of all that there can be: across a page, and for a column."""


class Drawing(NamedTuple):
    """How pictures are to be."""

    is_serif: bool = False
    """Whether type is like Times."""

    axis: CostAxis | None = None
    """Of the picture of retention, in place of the visual tokens."""


_PLAIN = Drawing()


class Pictures(NamedTuple):
    """The files that were written."""

    paths: tuple[Path, ...]
    note: str | None = None
    """Why there is no picture of retention."""


def draw_while(
    table: Table, cells: pd.DataFrame, out: Path, work: Callable[[], T], workers: Executor | None, drawing: Drawing
) -> tuple[Pictures, T]:
    """Write the pictures that need no comparison into `out`, by `workers` if there are some, and do `work` meanwhile.

    Args:
        table: of measured runs.
        cells: of the `Measurements` that it was built from.
        out: a folder that is there.
        work: done in this process.
        workers: other processes.
        drawing: how pictures are to be.
    """
    if workers is None:
        return write_pictures(table, cells, out, drawing), work()
    # The ones that take longest first.
    jobs = [workers.submit(draw, table, cells, out, drawing) for draw in (_scores, _ratios, _retention)]
    done = work()
    scores, ratios, retention = (job.result() for job in jobs)
    return _together(retention, ratios, scores), done


def load_drawing(workers: Executor | None) -> None:
    """Have `workers` load what pictures need, which takes a second, while this process does something else."""
    if workers is not None:
        for _ in range(NUM_WORKERS):
            workers.submit(import_module, "vico_eval.report.figures.router_scores")


def write_pictures(table: Table, cells: pd.DataFrame, out: Path, drawing: Drawing = _PLAIN) -> Pictures:
    """Retention over tokens, ratios and the router's scores, as far as there are numbers for them."""
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
    """Write the pictures with intervals into `out`: of the benchmarks, of budgets and routers as far as there are some.

    Args:
        table: of measured runs.
        uncertainty: of `vico_eval.report.stats.uncertainty.compare_with_baseline`.
        calibration: of `vico_eval.report.strata.calibration.router_calibration`.
        out: a folder that is there.
        workers: other processes, which draw them; None for this one.
        is_serif: whether type is like Times.
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
    """What each picture is drawn for, by the ending of its stem."""
    return {"": Sheet(is_serif=is_serif), NARROW: Sheet(width=COLUMN, is_serif=is_serif)}


def _together(retention: Pictures, *others: Pictures) -> Pictures:
    return retention._replace(paths=retention.paths + tuple(path for each in others for path in each.paths))


# matplotlib is loaded only where it is drawn: that takes half a second, and what reads tables draws nothing.
def _retention(table: Table, cells: pd.DataFrame, out: Path, drawing: Drawing) -> Pictures:
    from vico_eval.report.figures.files import write_figure
    from vico_eval.report.figures.retention import draw_retention

    paths: list[Path] = []
    try:
        for ending, sheet in _sheets(drawing.is_serif).items():
            paths += write_figure(draw_retention(table, sheet, drawing.axis), out, f"retention{ending}")
    except ReportError as error:
        return Pictures((), f"No picture: {error}")
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
    """A picture's files for each sheet on which there is one."""
    from vico_eval.report.figures.files import write_figure

    paths: list[Path] = []
    for ending, sheet in _sheets(is_serif).items():
        if (figure := draw(sheet)) is not None:
            paths += write_figure(figure, out, f"{stem}{ending}")
    return tuple(paths)
