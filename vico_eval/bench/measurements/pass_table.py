"""`vico-eval run tiny`, the built-in table, with passes and with a process for each row."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vico_eval.bench.measurements.two_ways import Answered, Said, compare
from vico_eval.commands.work.starting import num_cores
from vico_eval.runs.folders import ANSWERS, journal_files
from vico_eval.runs.journal import Journal
from vico_eval.runs.read import read_record
from vico_eval.runs.schema import StoredAnswer

PROGRAM = (sys.executable, "-m", "vico_eval")

TABLE = "tiny"
JOBS = 2
"""Processes at once, with passes and without."""

SEPARATE_ROWS = "--no-shared-pass"

SHOWN = 2000
"""Letters of a failed command's last words."""


class CommandFailed(Exception):
    """`vico-eval run` did not end well, or did not do what was to be measured."""


def measure(limit: int | None, rounds: int, device: str, program: Sequence[str] = PROGRAM) -> dict[str, Any]:
    """Part of the record.

    Args:
        limit: first documents of each task; None for all.
        rounds: how often the table is filled in each way.
        device: of the models.
        program: the command line of this package.
    """
    command = [*program, "run", TABLE, "--device", device, "--jobs", str(JOBS)]
    asked = [] if limit is None else ["--limit", str(limit)]
    # Unused: files of libraries and data come from the disk only once.
    fill([*command, "--rows", "vanilla", "--limit", "1"])
    compared = compare(
        _way([*command, *asked, SEPARATE_ROWS], is_shared=False), _way([*command, *asked], is_shared=True), rounds
    )
    # All processes together; the command decides how many each of them has.
    return {"table": TABLE, "limit": limit, "jobs": JOBS, "threads": num_cores(), **compared}


def _way(command: Sequence[str], *, is_shared: bool) -> Callable[[], Answered]:
    def way() -> Answered:
        answered = fill(command)
        passes, rows = answered.facts["passes"], len(answered.rows)
        if (passes < rows) != is_shared:
            raise CommandFailed(
                f"`{' '.join(command)}` answered {rows} rows in {passes} passes; expected "
                f"{'rows that share a pass' if is_shared else 'a pass for each row'}."
            )
        return answered

    return way


def fill(command: Sequence[str]) -> Answered:
    """Run a command of `vico-eval run` in an empty folder, and read what it answered.

    Raises:
        CommandFailed: it ended with an error.
    """
    with tempfile.TemporaryDirectory() as place:
        done = subprocess.run(command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            raise CommandFailed(f"`{' '.join(command)}` ended with {done.returncode}: {done.stdout[-SHOWN:]}")
        (table,) = (Path(place) / "runs").iterdir()
        return read_rows(table)


def read_rows(table: Path) -> Answered:
    """Answers of all runs in a table's folder, without their times, and in how many passes they were given."""
    rows: dict[str, dict[object, Said]] = {}
    passes = set()
    for folder in sorted(table.iterdir()):
        record = read_record(folder) if journal_files(folder, ANSWERS) else None
        if record is None:
            continue
        with_others = {os.path.normpath(folder / other) for other in record.answered_with}
        passes.add(frozenset({os.path.normpath(folder), *with_others}))
        rows[folder.name] = {}
        for line in Journal(folder, StoredAnswer, ANSWERS, rank=0).lines():
            assert line.seconds is not None, "runs of this version say what their answers took"
            rows[folder.name][line.key] = Said(line.model_copy(update={"seconds": None}), line.seconds)
    return Answered(rows=rows, facts={"passes": len(passes)})
