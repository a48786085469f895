"""The state of a run's folder: finished cells, and whether they have the same command and inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from vico_eval.commands.work.inputs import Inputs
from vico_eval.commands.work.plan import Cell, PlannedRun
from vico_eval.commands.work.progress import Progress
from vico_eval.errors import ReportError
from vico_eval.paths import free_path
from vico_eval.runs.read import read_record, read_request, read_run
from vico_eval.runs.schema import RunRequest
from vico_eval.runs.staleness import completed, why_stale
from vico_eval.runs.write import write_request

Check = Callable[[Path, Sequence[Cell]], None]
"""Raises ReportError if a run's folder lacks results of a cell, or has unanswered documents."""


class DocumentsFailed(ReportError):
    """A cell has results, but unanswered documents."""


def check_cells(folder: Path, cells: Sequence[Cell]) -> None:
    """Check that a run has an answer to every document of cells.

    Raises:
        DocumentsFailed: it has results, but some documents failed.
        ReportError: it has no results, or they lack documents.
    """
    wanted = [task for cell in cells for task in cell.results]
    tasks = read_run(folder, only=wanted).tasks
    if missing := [task for task in wanted if task not in tasks]:
        raise ReportError(f"{folder} has no results of {', '.join(missing)}.")
    documents = [document for task in tasks.values() for document in task.documents]
    if failed := [document.failure for document in documents if document.failure is not None]:
        first = failed[0].rstrip(".")
        raise DocumentsFailed(f"{len(failed)} of {len(documents)} documents have no answer; the first: {first}.")


def problems_of(run: PlannedRun, cells: Sequence[Cell], check: Check) -> list[tuple[Cell, ReportError]]:
    """Return the unfinished cells, with the reason for each."""
    problem = _problem(run, cells, check)
    if problem is None or len(cells) == 1:
        return [] if problem is None else [(cells[0], problem)]
    # Cells are first checked together, so that a finished run is read once.
    alone = ((cell, _problem(run, (cell,), check)) for cell in cells)
    return [(cell, problem) for cell, problem in alone if problem is not None]


def _problem(run: PlannedRun, cells: Sequence[Cell], check: Check) -> ReportError | None:
    try:
        check(run.folder, cells)
    except ReportError as error:
        return error
    return None


def unfinished(
    run: PlannedRun, inputs: Inputs, check: Check, *, fresh: bool = False
) -> tuple[str | None, tuple[Cell, ...]]:
    """Return why a run's folder must be moved aside, if it must, and the cells to answer.

    Args:
        run: the planned run.
        inputs: its inputs.
        check: the check of finished cells.
        fresh: repeat finished cells.
    """
    reason = _why_set_aside(run, inputs, fresh=fresh)
    if reason is not None:
        return reason, run.cells
    return None, tuple(cell for cell, _ in problems_of(run, run.cells, check))


def prepare(run: PlannedRun, inputs: Inputs, progress: Progress, *, fresh: bool) -> None:
    """Prepare a run's folder; one with stale answers is moved to `old/`."""
    reason = _why_set_aside(run, inputs, fresh=fresh)
    if reason is not None:
        aside = free_path(run.folder.parent / "old" / f"{run.folder.name}.")
        aside.parent.mkdir(exist_ok=True)
        run.folder.rename(aside)
        progress.set_aside(run, aside, reason)
    run.folder.mkdir(parents=True, exist_ok=True)
    request = _request(run, inputs)
    if (earlier := read_request(run.folder)) is not None:
        request = request.model_copy(update={"cells": earlier.cells | request.cells})
    write_request(run.folder, request)


def _request(run: PlannedRun, inputs: Inputs) -> RunRequest:
    return RunRequest(
        arguments=run.arguments,
        versions=dict(inputs.versions),
        checkpoints=dict(inputs.checkpoints[run.name]),
        cells={cell.benchmark: inputs.cells[cell.benchmark] for cell in run.cells},
    )


def _why_set_aside(run: PlannedRun, inputs: Inputs, *, fresh: bool) -> str | None:
    """Return why a run's folder can't be resumed; None also if it doesn't exist."""
    if not run.folder.exists():
        return None
    if fresh:
        return "fresh answers were asked for"
    earlier, now = read_request(run.folder), _request(run, inputs)
    if earlier is not None and earlier.version == 1:
        earlier = _completed(run, earlier, now, inputs)
    return "nobody knows what it is of" if earlier is None else why_stale(earlier, now)


def _completed(run: PlannedRun, earlier: RunRequest, now: RunRequest, inputs: Inputs) -> RunRequest | None:
    try:
        record = read_record(run.folder)
    except ReportError:
        return None
    return None if record is None else completed(earlier, record, now, inputs.written_s[run.name])
