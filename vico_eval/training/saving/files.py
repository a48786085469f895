"""Files of a training: written whole or not at all, by one training at a time, and an error that a user can act on
where the disk has no more room."""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

from safetensors import SafetensorError, safe_open

from vico_eval.errors import OutputError
from vico_eval.files import to_disk

LOCK = "training.lock"
"""In a training's folder: held while it runs, and says who holds it. It stays there afterwards, and means nothing."""

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Where to write a file that takes its name when it is complete and on the disk; until then the old one stays."""
    unfinished = path.with_name(f"{path.name}.unfinished")
    path.parent.mkdir(parents=True, exist_ok=True)
    yield unfinished
    to_disk(unfinished)
    unfinished.replace(path)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Where to write a folder's files that take their places when all are complete; other files there stay."""
    unfinished = path.with_name(f"{path.name}.unfinished")
    if unfinished.exists():
        shutil.rmtree(unfinished)  # of a run that was killed
    unfinished.mkdir(parents=True)
    yield unfinished
    files = sorted(unfinished.iterdir(), key=lambda file: file.name == "config.json")  # last: it makes a checkpoint
    for file in files:
        to_disk(file)
    path.mkdir(exist_ok=True)
    for file in files:
        file.replace(path / file.name)
    unfinished.rmdir()


def weights_problem(path: Path) -> str | None:
    """What keeps a safetensors file from being weights that were trained; None where nothing does."""
    is_blank = True
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():
                value = file.get_tensor(name)
                if not bool(value.isfinite().all()):
                    return f"holds numbers that are none ({name})"
                is_blank = is_blank and not bool(value.any())
    except (OSError, SafetensorError, ValueError) as error:
        return f"can't be read: {error}"
    return "holds nothing but zeros" if is_blank else None


@contextmanager
def output_errors(out: Path) -> Iterator[None]:
    """Turns what is raised where `out` can't be written any more, such as on a full disk, into an error that says so.

    Raises:
        OutputError: whatever was complete before is still there.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        if not _is_about_writing(error, out):
            raise
        raise OutputError(
            f"Can't write into {out} any more: {error}. What was complete before is still there. Make room and repeat "
            "the command, which goes on from the last checkpoint."
        ) from error


def _is_about_writing(error: Exception, out: Path) -> bool:
    """By its number, its file or its words: safetensors and torch keep neither number nor file."""
    if isinstance(error, OSError):
        is_below = error.filename is not None and Path(os.fsdecode(error.filename)).is_relative_to(out)
        return error.errno in _NO_ROOM or is_below
    words = str(error)
    return "os error" in words or ("inline_container" in words and "pos" in words) or "PytorchStreamWriter" in words


@contextmanager
def held(out: Path) -> Iterator[None]:
    """Holds a training's folder against other trainings until the context is left or this process ends.

    Raises:
        OutputError: another training holds it; names the process.
    """
    out.mkdir(parents=True, exist_ok=True)
    with (out / LOCK).open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise OutputError(
                f"Another training writes into {out}: {lock.read().strip() or 'it has just begun'}. Wait for it, stop "
                "it, or give this one another folder."
            ) from error
        except OSError as error:
            raise OutputError(
                f"{out / LOCK} can't be locked ({error.strerror}), and two trainings in one folder would destroy each "
                "other's checkpoints. Give a folder on a file system with locks."
            ) from error
        lock.truncate(0)
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        lock.write(f"process {os.getpid()} on {platform.node()}, since {now}\n")
        lock.flush()
        yield
