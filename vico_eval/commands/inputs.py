"""What finished answers depend on besides their command: checkpoints, tasks and the code that answers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import vico_eval
from vico_eval import paths
from vico_eval.commands.plan import PlannedRun
from vico_eval.errors import CheckpointError

# Rooms whose code decides what a model answers; a change in one of them makes finished runs stale.
_ANSWERING = ("internvl", "methods", "engine", "adapters")

# Larger files are weights from elsewhere: their size and time stand for their bytes.
_HASHED_BYTES = 2**26


def local_checkpoints(runs: Sequence[PlannedRun], trained_by: str | None) -> list[Path]:
    """The folders of the checkpoints that runs load, as far as they are on this machine.

    Args:
        runs: of one table.
        trained_by: the command that trains the built-in ones.

    Raises:
        CheckpointError: a built-in one is not there; says how to train it.
    """
    names = dict.fromkeys(name for run in runs for name in run.checkpoints)
    folders = {name: Path(name) if Path(name).is_dir() else paths.models_dir() / name for name in names}
    # A name with a slash that is no folder is a hub id.
    built_in = [folder for name, folder in folders.items() if "/" not in name and not Path(name).is_dir()]
    if missing := [folder for folder in built_in if not (folder / "config.json").is_file()]:
        listed = ", ".join(folder.name for folder in missing)
        advice = f"Train it (`{trained_by}`) and move its folder there, or leave" if trained_by else "Leave"
        raise CheckpointError(f"{paths.models_dir()} has no finished checkpoint {listed}. {advice} out its rows.")
    return [folder for folder in folders.values() if folder.is_dir()]


def answering_code() -> list[Path]:
    """The folders of the code that decides what a model answers."""
    package = Path(__file__).resolve().parent.parent
    return [package / room for room in _ANSWERING]


def fingerprint(paths: Iterable[Path]) -> str:
    """SHA-256 over the names and bytes of files and of those under folders, caches left out."""
    digest = hashlib.sha256(vico_eval.__version__.encode())
    for root in paths:
        files = [root] if root.is_file() else sorted(path for path in root.rglob("*") if path.is_file())
        for path in files:
            if "__pycache__" not in path.parts:
                digest.update(f"{root.name}/{path.relative_to(root)}\0".encode())
                digest.update(_content(path))
    return digest.hexdigest()


def _content(path: Path) -> bytes:
    state = path.stat()
    if state.st_size > _HASHED_BYTES:
        return f"{state.st_size} bytes of {state.st_mtime_ns}".encode()
    return hashlib.sha256(path.read_bytes()).digest()
