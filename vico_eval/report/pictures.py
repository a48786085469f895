"""All pictures of a measured table, drawn while the rest of a large report is computed."""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple, TypeVar

import pandas as pd

from vico_eval.errors import ReportError
from vico_eval.report.layout import Table
from vico_eval.report.measurements import Measurements

_WORTH_A_PROCESS = 50_000
"""Documents, all runs together, whose comparison takes longer than starting a process."""

T = TypeVar("T")


class Pictures(NamedTuple):
    """The files that were written."""

    paths: tuple[Path, ...]
    note: str | None
    """Why there is no picture of retention."""


def draw_while(table: Table, measured: Measurements, out: Path, work: Callable[[], T]) -> tuple[Pictures, T]:
    """Draw the pictures into `out`, and do `work` meanwhile if there are many documents."""
    if len(measured.documents) < _WORTH_A_PROCESS:
        return write_pictures(table, measured.cells, out), work()
    # Spawned: a copy of a process that has threads, as pandas' libraries start them, may hang.
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as pool:
        drawn = pool.submit(write_pictures, table, measured.cells, out)
        done = work()
        return drawn.result(), done


def write_pictures(table: Table, cells: pd.DataFrame, out: Path) -> Pictures:
    """Retention over tokens, bars by benchmark, and the router's scores, as far as there are numbers for them.

    Args:
        table: of measured runs.
        cells: of the `Measurements` that it was built from.
        out: a folder that is there.
    """
    # Only here: matplotlib takes half a second to load, and what reads tables draws nothing.
    from vico_eval.report.bar_figures import draw_bars
    from vico_eval.report.figures import draw_retention, write_figure
    from vico_eval.report.score_figure import draw_scores

    paths: tuple[Path, ...] = ()
    note = None
    try:
        paths = write_figure(draw_retention(table), out)
    except ReportError as error:
        note = f"No picture: {error}"
    for stem, figure in (draw_bars(table) | {"scores": draw_scores(table, cells)}).items():
        if figure is not None:
            paths += write_figure(figure, out, stem)
    return Pictures(paths, note)
