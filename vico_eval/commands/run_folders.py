"""What a run's folder holds: which cells are finished, and whether what is there is of the same command and inputs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vico_eval.commands.inputs import Inputs
from vico_eval.commands.plan import Cell, PlannedRun
from vico_eval.commands.progress import Progress
from vico_eval.errors import BAD_INPUT, ReportError
from vico_eval.files import write_json
from vico_eval.paths import free_path

REQUEST_FILE = "request.json"

Check = Callable[[Path, Cell], None]
"""Raises ReportError where a run's folder has no results of a cell, or documents of it without an answer."""


class DocumentsFailed(ReportError):
    """A cell has results, but documents of it have no answer."""


class AnswerCount:
    """Documents of a run that have an answer so far: lines of its `answers.rank*.jsonl`, of which each is read once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[Path, tuple[int, int]] = {}
        """Of each file, the bytes that were read, and the lines in them."""

    def count(self) -> int:
        """As of now; a line that is being written does not count yet."""
        for path in self._folder.glob("answers.rank*.jsonl"):
            offset, before = self._read.get(path, (0, 0))
            if path.stat().st_size < offset:  # set aside and begun anew, or lines were taken out
                offset, before = 0, 0
            with path.open("rb") as file:
                file.seek(offset)
                *lines, _ = file.read().split(b"\n")
            after = before + sum(1 for line in lines if line.strip())
            self._read[path] = offset + sum(len(line) + 1 for line in lines), after
        return sum(lines for _, lines in self._read.values())


def problem_of(run: PlannedRun, cell: Cell, check: Check) -> ReportError | None:
    """What keeps a cell from being finished."""
    try:
        check(run.folder, cell)
    except ReportError as error:
        return error
    return None


def unfinished(run: PlannedRun, inputs: Inputs, check: Check) -> tuple[str | None, tuple[Cell, ...]]:
    """Why what a run's folder holds is stale, if it is; and the cells that are to be answered."""
    reason = _stale(run, inputs)
    if reason is not None:
        return reason, run.cells
    return None, tuple(cell for cell in run.cells if problem_of(run, cell, check) is not None)


def prepare(run: PlannedRun, inputs: Inputs, progress: Progress, *, fresh: bool) -> None:
    """Make a run's folder ready; one that holds stale answers is set aside, under `old/`."""
    reason = "fresh answers were asked for" if fresh else _stale(run, inputs)
    if reason is not None and run.folder.exists():
        aside = free_path(run.folder.parent / "old" / f"{run.folder.name}.")
        aside.parent.mkdir(exist_ok=True)
        run.folder.rename(aside)
        progress.set_aside(run, aside, reason)
    run.folder.mkdir(parents=True, exist_ok=True)
    request = _request(run, inputs)
    if (earlier := _earlier_request(run)) is not None:
        request["cells"] = earlier["cells"] | request["cells"]
    write_json(run.folder / REQUEST_FILE, request, indent=1)


def _request(run: PlannedRun, inputs: Inputs) -> dict[str, Any]:
    cells = {cell.benchmark: inputs.cells[cell.benchmark] for cell in run.cells}
    return {"arguments": list(run.arguments), "inputs": inputs.runs[run.name], "cells": cells}


def _earlier_request(run: PlannedRun) -> dict[str, Any] | None:
    try:
        values = json.loads((run.folder / REQUEST_FILE).read_text(encoding="utf-8"))
    except BAD_INPUT:
        return None
    is_request = isinstance(values, dict) and values.keys() == {"arguments", "inputs", "cells"}
    return values if is_request and isinstance(values["cells"], dict) else None


def _stale(run: PlannedRun, inputs: Inputs) -> str | None:
    """Why what a run's folder holds can't be gone on with; None also where there is no folder yet."""
    if not run.folder.exists():
        return None
    earlier, now = _earlier_request(run), _request(run, inputs)
    if earlier is None:
        return "nobody knows what it is of"
    if earlier["arguments"] != now["arguments"]:
        return "it is of other arguments"
    if earlier["inputs"] != now["inputs"]:
        return "checkpoints, code or libraries have changed"
    changed = [name for name, content in now["cells"].items() if earlier["cells"].get(name, content) != content]
    return f"the tasks of {', '.join(changed)} have changed" if changed else None
