"""Resumable checkpoints of a training run: finding, verifying and removing them.

A checkpoint is a folder that accelerate wrote, plus `progress.json`, which is written last. A folder without it was
left by a run that was killed while saving, and does not count. `progress.json` has the size and SHA-256 of every other
file, so that truncated or zeroed files are detected before training resumes from them.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from vico_eval.digests import sha256_of
from vico_eval.errors import CheckpointError
from vico_eval.files import to_disk, write_text
from vico_eval.paths import free_path
from vico_eval.training.config import Saving
from vico_eval.training.loop.finite import as_json
from vico_eval.training.saving.files import weights_problem

NUM_LAST = 2
"""Number of newest checkpoints to keep, so that there is an earlier one if the last is damaged."""

_PROGRESS = "progress.json"
_NAME = re.compile(r"step-[0-9]+")
_READERS = 8
"""Files read in parallel; a sharded checkpoint has one for each process."""


@dataclass(frozen=True)
class Progress:
    """The contents of a checkpoint's `progress.json`."""

    step: int
    """Number of steps done."""

    held_out: float | None
    """The held-out loss at that step; None if the run was stopped before measuring it or the loss is unknown."""

    config: dict[str, Any]
    """The run's configuration; only a run with the same one can resume from here."""

    inputs: list[dict[str, Any]] | None = None
    """The run's inputs: its data and the models it started from. None in checkpoints of earlier versions."""

    files: dict[str, dict[str, Any]] | None = None
    """`bytes` and `sha256` of every other file. None in checkpoints of earlier versions."""


class Checkpoints:
    """The checkpoints of one phase of a run, in their own folder."""

    def __init__(
        self, folder: Path, saving: Saving, config: dict[str, Any], inputs: Sequence[Mapping[str, Any]] | None = None
    ) -> None:
        """
        Args:
            folder: the phase's folder.
            saving: which checkpoints to keep.
            config: the run's configuration.
            inputs: the run's inputs, each with a `name`; None skips their comparison.
        """
        self.folder = folder
        self._saving = saving
        self._config = config
        self._inputs = None if inputs is None else [dict(one) for one in inputs]

    def path(self, step: int) -> Path:
        """Return the folder of a step's checkpoint, whether or not it exists."""
        return self.folder / f"step-{step:07d}"

    def kept(self) -> str:
        """Return a clause that names the checkpoint from which a run that ends now would resume."""
        found = self._finished()
        return (
            f"the checkpoint of step {max(found)} is kept ({self.path(max(found))})."
            if found
            else "there is no earlier checkpoint."
        )

    def newest(self, say: Callable[[str], None] = lambda message: None) -> Progress | None:
        """Return the progress of the newest intact checkpoint; None if there are no checkpoints.

        Damaged checkpoints of later steps are set aside. Only one process may call this.

        Args:
            say: receives a message for each checkpoint that is set aside.

        Raises:
            CheckpointError: the run had another configuration or other data, or all checkpoints are damaged.
        """
        torn: dict[Path, str] = {}
        for folder in sorted(self._folders(), key=_step, reverse=True):
            try:
                progress = _read(folder)
                self._check_run(progress)
                check_files(folder, progress.files)
            except _Torn as error:
                torn[folder] = str(error)
                continue
            self._set_aside(torn, progress.step, say)
            return progress
        if torn:
            raise CheckpointError(
                f"No checkpoint in {self.folder} can be used: {_listed(torn)}. Restore the files, or remove "
                "that folder to start over."
            )
        return None

    def finish(self, step: int, held_out: float | None) -> None:
        """Complete the checkpoint of `step`, whose other files exist, and remove checkpoints that need not be kept."""
        folder = self.path(step)
        files = _digests(folder, _names(folder))
        progress = Progress(step, held_out, self._config, self._inputs, files)
        values = {field.name: getattr(progress, field.name) for field in fields(progress)}
        write_text(folder / _PROGRESS, as_json(values, indent=2) + "\n")
        found = self._finished()
        best = sorted(found.values(), key=_rank)[: self._saving.keep_best]
        keep = {one.step for one in best} | set(sorted(found)[-NUM_LAST:]) | {step}
        for path in self.folder.glob("step-*"):
            if _NAME.fullmatch(path.name) and _step(path) not in keep:
                shutil.rmtree(path)

    def _check_run(self, progress: Progress) -> None:
        if different := [name for name, value in self._config.items() if progress.config.get(name) != value]:
            raise CheckpointError(
                f"{self.folder} has checkpoints of a run with another {', '.join(different)}. Give this run another "
                "`out`, or restore the configuration to resume that run."
            )
        if progress.inputs is None or self._inputs is None:
            return
        if changed := list(differences(progress.inputs, self._inputs)):
            raise CheckpointError(
                f"The inputs of the run in {self.folder} have changed since its step {progress.step}: "
                f"{'; '.join(changed)}. Restore them to resume, or give this run another `out`."
            )

    def _set_aside(self, torn: Mapping[Path, str], step: int, say: Callable[[str], None]) -> None:
        for folder, reason in torn.items():
            aside = free_path(folder.with_name(f"torn-{folder.name}-"))
            folder.rename(aside)
            say(
                f"The checkpoint {folder} can't be used ({reason}) and was set aside as {aside.name}. The run resumes "
                f"from step {step} and repeats the steps after it."
            )

    def _folders(self) -> list[Path]:
        """Return the folders of finished checkpoints, intact or not."""
        return [path.parent for path in self.folder.glob(f"step-*/{_PROGRESS}") if _NAME.fullmatch(path.parent.name)]

    def _finished(self) -> dict[int, Progress]:
        """Return, by step, the checkpoints whose progress can be read."""
        found = {}
        for folder in self._folders():
            try:
                found[_step(folder)] = _read(folder)
            except _Torn:
                continue  # reported when a run tries to resume from it
        return found


class _Torn(Exception):
    """A checkpoint's file is missing, unreadable or changed."""


def differences(then: Iterable[Mapping[str, Any]], now: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a phrase for each difference between a run's earlier and current inputs."""
    before, after = ({one["name"]: one for one in inputs} for inputs in (then, now))
    yield from (f"{name} is gone" for name in sorted(before.keys() - after.keys()))
    yield from (f"{name} is new" for name in sorted(after.keys() - before.keys()))
    for name in sorted(before.keys() & after.keys()):
        one, other = before[name], after[name]
        if one.get("samples") != other.get("samples"):
            yield f"{name} had {one.get('samples')} samples and has {other.get('samples')}"
        elif changed := [key for key in one.keys() | other.keys() if one.get(key) != other.get(key)]:
            words = {"sha256": "content", "pictures": "media", "settings": "settings in its meta file"}
            yield f"{name} has different {' and '.join(sorted(words.get(key, key) for key in changed))}"
    if before.keys() == after.keys() and list(before) != list(after):
        yield "the sources are in another order"


def check_files(folder: Path, files: Mapping[str, Mapping[str, Any]] | None) -> None:
    """Verify that a checkpoint's files are unchanged since they were written.

    Raises:
        _Torn: names the file or files that are missing or changed.
    """
    if files is None:
        _check_unlisted(folder)
        return
    for name, wanted in files.items():
        path = folder / name
        if not path.is_file():
            raise _Torn(f"{name} is missing")
        if (size := path.stat().st_size) != wanted["bytes"]:
            raise _Torn(f"{name} has {size} of {wanted['bytes']} bytes")
    try:
        found = _digests(folder, list(files))
    except OSError as error:
        raise _Torn(f"it can't be read: {error}") from error
    if changed := [name for name in files if found[name] != files[name]]:
        raise _Torn(f"the content of {', '.join(changed)} has changed since it was written")


def _check_unlisted(folder: Path) -> None:
    """Verify a checkpoint without a list of files, as far as its file formats allow."""
    for name in _names(folder):
        path = folder / name
        if path.suffix == ".safetensors" and (problem := weights_problem(path)):
            raise _Torn(f"{name} {problem}")
        if path.suffix in (".bin", ".pkl"):
            try:
                with zipfile.ZipFile(path) as archive:
                    odd = archive.testzip()
            except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
                raise _Torn(f"{name} can't be read: {error}") from error
            if odd is not None:
                raise _Torn(f"the content of {name} has changed since it was written")


def _read(folder: Path) -> Progress:
    try:
        values = json.loads((folder / _PROGRESS).read_text(encoding="utf-8"))
        progress = Progress(**values)
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise _Torn(f"{_PROGRESS} can't be read: {error}") from error
    if progress.step != _step(folder) or not isinstance(progress.config, dict):
        raise _Torn(f"{_PROGRESS} belongs to another checkpoint or is malformed")
    return progress


def _names(folder: Path) -> list[str]:
    """Return the paths of a checkpoint's files, relative to its folder, except its progress."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(_PROGRESS))
    return sorted(path.relative_to(folder).as_posix() for path in files)


def _digests(folder: Path, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Flush files to the disk and return their sizes and SHA-256 digests."""
    for name in names:
        to_disk(folder / name)
    with ThreadPoolExecutor(_READERS, "digest") as pool:
        digests = list(pool.map(sha256_of, (folder / name for name in names)))
    return {
        name: {"bytes": (folder / name).stat().st_size, "sha256": digest}
        for name, digest in zip(names, digests, strict=True)
    }


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def _listed(torn: Mapping[Path, str]) -> str:
    return "; ".join(f"{folder.name}: {reason}" for folder, reason in torn.items())


def _rank(progress: Progress) -> tuple[float, int]:
    """Return a sort key; smaller is better, and an unknown or NaN loss comes last."""
    loss = progress.held_out
    return (math.inf if loss is None or math.isnan(loss) else loss), -progress.step
