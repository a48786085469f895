"""What processes are started for: whole results of a run's benchmarks, or the answers of a shard."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from vico_eval.commands.work.run_folders import Check, check_cells
from vico_eval.runs.folders import results_files
from vico_eval.runs.shards import Shard


@dataclass(frozen=True, slots=True)
class Goal:
    """How a run's folder shows that a process has done its work. By default, by results of lmms-eval."""

    check: Check = check_cells
    """Of the cells that it was started for."""

    outcomes: Callable[[Path], Iterable[object]] = results_files
    """What a process leaves in the folder when it has gone through all documents: there is more of it then."""

    shard: Shard | None = None
    """Part of the documents that is answered, without a score; None for all."""
