"""The goal of processes: complete results of a run's benchmarks, or the answers of a shard."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from vico_eval.commands.work.run_folders import Check, check_cells
from vico_eval.runs.folders import results_files
from vico_eval.runs.shards import Shard


@dataclass(frozen=True, slots=True)
class Goal:
    """The evidence in a run's folder that a process has finished; by default, lmms-eval's results."""

    check: Check = check_cells
    """Check of the cells that it was started for."""

    outcomes: Callable[[Path], Iterable[object]] = results_files
    """The files that a process adds to the folder after going through all documents."""

    shard: Shard | None = None
    """The part of the documents to answer, without scoring; None for all."""
