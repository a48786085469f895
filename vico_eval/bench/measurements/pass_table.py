"""The built-in table, `vico-eval run tiny`, with shared passes and with a separate process for each row."""

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
"""Number of parallel processes, with and without shared passes."""

SEPARATE_ROWS = "--no-shared-pass"

SHOWN = 2000
"""Maximum number of characters shown of a failed command's output."""


class CommandFailed(Exception):
    """`vico-eval run` failed, or did not share passes as the measurement requires."""


def measure(limit: int | None, rounds: int, device: str, program: Sequence[str] = PROGRAM) -> dict[str, Any]:
    """Measure the built-in table and return a part of the record.

    Args:
        limit: number of documents per task; None for all.
        rounds: number of times that the table is filled in each way.
        device: the models' device.
        program: the command line of this package.
    """
    command = [*program, "run", TABLE, "--device", device, "--jobs", str(JOBS)]
    asked = [] if limit is None else ["--limit", str(limit)]
    # A warm-up, so that library and data files are in the disk cache.
    fill([*command, "--rows", "vanilla", "--limit", "1"])
    compared = compare(
        _way([*command, *asked, SEPARATE_ROWS], is_shared=False), _way([*command, *asked], is_shared=True), rounds
    )
    # `threads` is the total over all processes; the command decides the number per process.
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
    """Run a `vico-eval run` command in an empty folder and read its answers.

    Raises:
        CommandFailed: the command failed.
    """
    with tempfile.TemporaryDirectory() as place:
        done = subprocess.run(command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            raise CommandFailed(f"`{' '.join(command)}` exited with status {done.returncode}: {done.stdout[-SHOWN:]}")
        (table,) = (Path(place) / "runs").iterdir()
        return read_rows(table)


def read_rows(table: Path) -> Answered:
    """Read the answers of all runs in a table's folder, without their times, and count the passes."""
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
            assert line.seconds is not None, "runs of this version record the time of each answer"
            rows[folder.name][line.key] = Said(line.model_copy(update={"seconds": None}), line.seconds)
    return Answered(rows=rows, facts={"passes": len(passes)})
