"""Inputs that finished answers depend on besides their command, known without loading a model; see
`vico_eval.runs.staleness`."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vico_eval import paths
from vico_eval.commands.work.plan import Cell, PlannedRun
from vico_eval.digests import file_digest
from vico_eval.errors import CheckpointError
from vico_eval.runs.staleness import versions


@dataclass(frozen=True, slots=True)
class Inputs:
    """The inputs of runs."""

    versions: Mapping[str, str | None]
    """Versions of this package and of libraries."""

    checkpoints: Mapping[str, Mapping[str, str]]
    """By run, digests of its checkpoints by name, and of those of the run that it depends on."""

    written_s: Mapping[str, float]
    """By run, when the newest of these files was written, in seconds since 1970; 0 if none is on this machine."""

    cells: Mapping[str, str]
    """By benchmark: the files of its tasks."""


def local_checkpoints(runs: Sequence[PlannedRun], trained_by: str | None) -> dict[str, Path]:
    """Return the folders of the runs' checkpoints, by name, as far as they are on this machine.

    Args:
        runs: of one table.
        trained_by: the command that trains built-in checkpoints.

    Raises:
        CheckpointError: a built-in one is missing; the message has the command that trains it.
    """
    names = dict.fromkeys(name for run in runs for name in run.checkpoints)
    given = {name: paths.user_path(name) for name in names}
    folders = {name: path if paths.is_folder(path) else paths.models_dir() / name for name, path in given.items()}
    # A name with a slash that isn't a folder is a hub id.
    built_in = [folder for name, folder in folders.items() if "/" not in name and folder != given[name]]
    if missing := [folder for folder in built_in if not (folder / "config.json").is_file()]:
        listed = ", ".join(folder.name for folder in missing)
        advice = f"Train it (`{trained_by}`) and move its folder there, or leave" if trained_by else "Leave"
        raise CheckpointError(f"{paths.models_dir()} has no finished checkpoint {listed}. {advice} out its rows.")
    return {name: folder for name, folder in folders.items() if paths.is_folder(folder)}


def find_inputs(
    runs: Sequence[PlannedRun], checkpoints: Mapping[str, Path], cells: Iterable[Cell], include_path: Path
) -> Inputs:
    """Return the inputs of `runs`.

    Args:
        runs: of one table.
        checkpoints: the result of `local_checkpoints`.
        cells: the table's cells.
        include_path: the folder of our own tasks.
    """
    digests = {name: fingerprint([folder]) for name, folder in checkpoints.items()}
    times = {
        name: max((path.stat().st_mtime for path in _files(folder)), default=0.0)
        for name, folder in checkpoints.items()
    }
    loaded = {run.name: run.checkpoints for run in runs}
    read = {run.name: (*run.checkpoints, *(loaded[run.after] if run.after is not None else ())) for run in runs}
    return Inputs(
        versions=versions(),
        checkpoints={run: {name: digests.get(name, name) for name in names} for run, names in read.items()},
        written_s={run: max((times.get(name, 0.0) for name in names), default=0.0) for run, names in read.items()},
        cells=cell_inputs(cells, include_path),
    )


def cell_inputs(cells: Iterable[Cell], include_path: Path) -> dict[str, str]:
    """Return fingerprints of our own tasks' files, by benchmark. lmms-eval's tasks are identified by its version."""
    folders: dict[str, Path] = {}
    for file in include_path.rglob("*.yaml"):
        for name in re.findall(r"^(?:task|group): *(\w+) *$", file.read_text(encoding="utf-8"), flags=re.MULTILINE):
            folders[name] = file.parent
    found = {}
    for cell in cells:
        own = dict.fromkeys(folders[name] for name in (*cell.tasks, *cell.results) if name in folders)
        found[cell.benchmark] = fingerprint(own)
    return found


def fingerprint(paths: Iterable[Path]) -> str:
    """Return a SHA-256 over names and bytes of files and folders, without documentation and caches.

    Unchanged weights are only read once.
    """
    digest = hashlib.sha256()
    for root in paths:
        for path in _files(root):
            digest.update(f"{root.name}/{path.relative_to(root)}\0{file_digest(path)}\0".encode())
    return digest.hexdigest()


def _files(root: Path) -> list[Path]:
    found = [root] if root.is_file() else sorted(path for path in root.rglob("*") if path.is_file())
    return [path for path in found if "__pycache__" not in path.parts and path.suffix != ".md"]
