"""Failures of a table's runs, and their messages."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vico_eval.commands.work.plan import Cell, PlannedRun

LOG_TAIL_LINES = 15

_LMMS_EVAL_ERROR = re.compile(r"Error during evaluation: (.*?)\.? Please set `--verbosity=DEBUG`", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Failure:
    """A cell that was not finished."""

    run: PlannedRun
    cell: Cell
    reason: str
    log: Path | None = None
    """Log of its process, if it had one."""

    kind: str = ""
    """The reason without the parts that are specific to a cell."""


def by_hand(run: PlannedRun, command: Sequence[str]) -> str:
    """Return a command as typed in a shell, with a run's environment variables."""
    variables = [f"{name}={shlex.quote(value)}" for name, value in run.environment.items()]
    return " ".join([*variables, shlex.join(command)])


def without_source(name: str, cell: Cell) -> str:
    """Return why a cell can't be answered because run `name`, which it depends on, failed there."""
    return f"it needs the result of {name} on {cell.benchmark}, which is incomplete."


def describe(failures: Iterable[Failure], *, can_repeat: bool = True) -> str:
    """Describe failures, grouped by run and reason: what failed, why, the log and the command to repeat.

    Args:
        failures: the failures of a table.
        can_repeat: whether a run's own command does the same; it doesn't for a shard, because it answers all documents.
    """
    grouped: dict[tuple[str, str], list[Failure]] = {}
    for failure in failures:
        grouped.setdefault((failure.run.name, failure.kind or failure.reason), []).append(failure)
    texts = []
    for (name, _), group in grouped.items():
        first, cells = group[0], [failure.cell for failure in group]
        lines = [f"{name} on {', '.join(cell.benchmark for cell in cells)}: {first.reason}"]
        if first.log is not None:
            lines.append(f"  Log: {first.log}")
        if can_repeat:
            lines.append(f"  To repeat it alone: {by_hand(first.run, first.run.command(cells))}")
        texts.append("\n".join(lines))
    return "\n\n".join(texts)


def crash(log: Path, status: int) -> tuple[str, str] | None:
    """Return how lmms-eval ended without results, in short and as text; None if its log doesn't show it."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    if said := _LMMS_EVAL_ERROR.search(text):
        return said[1], said[1]
    if status == 0:
        return None  # it exits with 0 after most failures, so missing results tell more
    tail = "\n".join(f"  {line}" for line in text.splitlines()[-LOG_TAIL_LINES:])
    return f"status {status}", f"lmms-eval exited with status {status}; the end of its log:\n{tail}"
