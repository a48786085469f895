"""Writing a training's files: each completely or not at all, by one training at a time, with a helpful error when the
disk is full."""

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
"""The lock file in a training's folder, with the name of the process that holds it. After the run the file stays, but
the lock is released."""

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; the file replaces `path` once it is complete and on the disk."""
    unfinished = path.with_name(f"{path.name}.unfinished")
    path.parent.mkdir(parents=True, exist_ok=True)
    yield unfinished
    to_disk(unfinished)
    unfinished.replace(path)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder to write to; its files move into `path` once all are complete. Other files in `path`
    are kept."""
    unfinished = path.with_name(f"{path.name}.unfinished")
    if unfinished.exists():
        shutil.rmtree(unfinished)  # left by a run that was killed
    unfinished.mkdir(parents=True)
    yield unfinished
    # config.json goes last, because its presence makes the folder a checkpoint.
    files = sorted(unfinished.iterdir(), key=lambda file: file.name == "config.json")
    for file in files:
        to_disk(file)
    path.mkdir(exist_ok=True)
    for file in files:
        file.replace(path / file.name)
    unfinished.rmdir()


def weights_problem(path: Path) -> str | None:
    """Return why a safetensors file can't be trained weights; None if nothing is wrong with it."""
    is_blank = True
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():
                value = file.get_tensor(name)
                if not bool(value.isfinite().all()):
                    return f"contains NaN or infinity ({name})"
                is_blank = is_blank and not bool(value.any())
    except (OSError, SafetensorError, ValueError) as error:
        return f"can't be read: {error}"
    return "contains only zeros" if is_blank else None


@contextmanager
def output_errors(out: Path) -> Iterator[None]:
    """Turn exceptions about writing to `out`, such as a full disk, into a user error.

    Raises:
        OutputError: `out` can't be written to; files completed before are still there.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        if not _is_about_writing(error, out):
            raise
        raise OutputError(
            f"Can't write into {out} any more: {error}. Files completed before are still there. Free some space and "
            "repeat the command, which resumes from the last checkpoint."
        ) from error


def _is_about_writing(error: Exception, out: Path) -> bool:
    """Decide by error number, file name or message; errors of safetensors and torch have only a message."""
    if isinstance(error, OSError):
        is_below = error.filename is not None and Path(os.fsdecode(error.filename)).is_relative_to(out)
        return error.errno in _NO_ROOM or is_below
    words = str(error)
    return "os error" in words or ("inline_container" in words and "pos" in words) or "PytorchStreamWriter" in words


@contextmanager
def held(out: Path) -> Iterator[None]:
    """Lock a training's folder against other trainings until the context is left or this process ends.

    Raises:
        OutputError: another training holds the lock (its process is named), or the file system has no locks.
    """
    out.mkdir(parents=True, exist_ok=True)
    with (out / LOCK).open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise OutputError(
                f"Another training is writing into {out}: {lock.read().strip() or 'it has just started'}. Wait for it, "
                "stop it, or give this one another folder."
            ) from error
        except OSError as error:
            raise OutputError(
                f"{out / LOCK} can't be locked ({error.strerror}); without a lock, two trainings in one folder could "
                "destroy each other's checkpoints. Use a folder on a file system that supports locks."
            ) from error
        lock.truncate(0)
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        lock.write(f"process {os.getpid()} on {platform.node()}, since {now}\n")
        lock.flush()
        yield
