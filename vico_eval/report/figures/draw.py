"""All pictures of a measured table, drawn while the rest of a large report is computed."""

from collections.abc import Callable
from concurrent.futures import Executor
from importlib import import_module
from pathlib import Path
from typing import NamedTuple, TypeVar

import pandas as pd

from vico_eval.errors import ReportError
from vico_eval.report.read_runs import NUM_WORKERS
from vico_eval.report.tables.table import Table

T = TypeVar("T")

PICTURES = tuple(
    f"{stem}.{kind}" for stem in ("retention", "budgets", "benchmarks", "ratios", "scores") for kind in ("pdf", "png")
)
"""Names of all that there can be."""


class Pictures(NamedTuple):
    """The files that were written."""

    paths: tuple[Path, ...]
    note: str | None = None
    """Why there is no picture of retention."""


def draw_while(
    table: Table, cells: pd.DataFrame, out: Path, work: Callable[[], T], workers: Executor | None
) -> tuple[Pictures, T]:
    """Write the pictures into `out`, by `workers` if there are some, and do `work` meanwhile.

    Args:
        table: of measured runs.
        cells: of the `Measurements` that it was built from.
        out: a folder that is there.
        work: done in this process.
        workers: other processes.
    """
    if workers is None:
        return write_pictures(table, cells, out), work()
    # The ones that take longest first.
    scores, bars, retention = (workers.submit(draw, table, cells, out) for draw in (_scores, _bars, _retention))
    done = work()
    return _together(retention.result(), bars.result(), scores.result()), done


def load_drawing(workers: Executor | None) -> None:
    """Have `workers` load what pictures need, which takes a second, while this process does something else."""
    if workers is not None:
        for _ in range(NUM_WORKERS):
            workers.submit(import_module, "vico_eval.report.figures.router_scores")


def write_pictures(table: Table, cells: pd.DataFrame, out: Path) -> Pictures:
    """Retention over tokens, bars by benchmark, and the router's scores, as far as there are numbers for them."""
    return _together(*(draw(table, cells, out) for draw in (_retention, _bars, _scores)))


def write_budgets(table: Table, uncertainty: pd.DataFrame, out: Path) -> tuple[Path, ...]:
    """Write the picture of retention over budgets into `out`, if methods were run at several; its files."""
    if not table.methods:
        return ()
    from vico_eval.report.budgets.picture import draw_budgets
    from vico_eval.report.figures.files import write_figure

    figure = draw_budgets(table, uncertainty)
    return () if figure is None else write_figure(figure, out, "budgets")


def _together(retention: Pictures, *others: Pictures) -> Pictures:
    return retention._replace(paths=retention.paths + tuple(path for each in others for path in each.paths))


# matplotlib is loaded only where it is drawn: that takes half a second, and what reads tables draws nothing.
def _retention(table: Table, cells: pd.DataFrame, out: Path) -> Pictures:
    from vico_eval.report.figures.files import write_figure
    from vico_eval.report.figures.retention import draw_retention

    try:
        return Pictures(write_figure(draw_retention(table), out))
    except ReportError as error:
        return Pictures((), f"No picture: {error}")


def _bars(table: Table, cells: pd.DataFrame, out: Path) -> Pictures:
    from vico_eval.report.figures.bars import draw_bars
    from vico_eval.report.figures.files import write_figure

    return Pictures(
        tuple(path for stem, figure in draw_bars(table).items() for path in write_figure(figure, out, stem))
    )


def _scores(table: Table, cells: pd.DataFrame, out: Path) -> Pictures:
    from vico_eval.report.figures.files import write_figure
    from vico_eval.report.figures.router_scores import draw_scores

    figure = draw_scores(table, cells)
    return Pictures(() if figure is None else write_figure(figure, out, "scores"))
