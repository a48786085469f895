"""What finished answers depend on besides their command: checkpoints, tasks, libraries and the code that answers."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from vico_eval import paths
from vico_eval.commands.plan import Cell, PlannedRun
from vico_eval.errors import CheckpointError

# Rooms whose code decides what a model answers; a change in one of them makes finished runs stale.
_ANSWERING = ("families", "methods", "engine", "harnesses", "runs")

# Libraries that decide it too, and how it is scored.
_LIBRARIES = ("vico-eval", "torch", "transformers", "lmms-eval")

# Larger files are weights from elsewhere: their size and time stand for their bytes.
_HASHED_BYTES = 2**26


@dataclass(frozen=True, slots=True)
class Inputs:
    """Fingerprints of what runs read."""

    runs: Mapping[str, str]
    """By run: code, libraries and checkpoints, its own and those of the run that it draws on."""

    cells: Mapping[str, str]
    """By benchmark: the files of its tasks."""


def local_checkpoints(runs: Sequence[PlannedRun], trained_by: str | None) -> dict[str, Path]:
    """The folders of the checkpoints that runs load, by name, as far as they are on this machine.

    Args:
        runs: of one table.
        trained_by: the command that trains the built-in ones.

    Raises:
        CheckpointError: a built-in one is not there; says how to train it.
    """
    names = dict.fromkeys(name for run in runs for name in run.checkpoints)
    given = {name: paths.user_path(name) for name in names}
    folders = {name: path if paths.is_folder(path) else paths.models_dir() / name for name, path in given.items()}
    # A name with a slash that is no folder is a hub id.
    built_in = [folder for name, folder in folders.items() if "/" not in name and folder != given[name]]
    if missing := [folder for folder in built_in if not (folder / "config.json").is_file()]:
        listed = ", ".join(folder.name for folder in missing)
        advice = f"Train it (`{trained_by}`) and move its folder there, or leave" if trained_by else "Leave"
        raise CheckpointError(f"{paths.models_dir()} has no finished checkpoint {listed}. {advice} out its rows.")
    return {name: folder for name, folder in folders.items() if paths.is_folder(folder)}


def run_inputs(runs: Sequence[PlannedRun], checkpoints: Mapping[str, Path]) -> dict[str, str]:
    """Fingerprint of what each run reads besides its tasks, by the run's name; with it, of what it draws on."""
    package = Path(__file__).resolve().parent.parent
    code = fingerprint(package / room for room in _ANSWERING)
    libraries = " ".join(version(name) for name in _LIBRARIES)
    weights = {name: fingerprint([folder]) for name, folder in checkpoints.items()}
    read = {run.name: [code, libraries, *(weights.get(name, name) for name in run.checkpoints)] for run in runs}
    drawn = {run.name: read[run.name] + (read[run.after] if run.after is not None else []) for run in runs}
    return {name: hashlib.sha256(" ".join(texts).encode()).hexdigest() for name, texts in drawn.items()}


def cell_inputs(cells: Iterable[Cell], include_path: Path) -> dict[str, str]:
    """Fingerprint of the files of our own tasks, by benchmark; those of packaged ones go with lmms-eval's version."""
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
    """SHA-256 over the names and bytes of files and of those under folders; texts for people and caches left out."""
    digest = hashlib.sha256()
    for root in paths:
        files = [root] if root.is_file() else sorted(path for path in root.rglob("*") if path.is_file())
        for path in files:
            if "__pycache__" not in path.parts and path.suffix != ".md":
                digest.update(f"{root.name}/{path.relative_to(root)}\0".encode())
                digest.update(_content(path))
    return digest.hexdigest()


def _content(path: Path) -> bytes:
    state = path.stat()
    if state.st_size > _HASHED_BYTES:
        return f"{state.st_size} bytes of {state.st_mtime_ns}".encode()
    return hashlib.sha256(path.read_bytes()).digest()
