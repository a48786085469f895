"""Atomic writes of files and folders, and locks that keep other processes out."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from filelock import FileLock
from safetensors import SafetensorError

from vico_eval.errors import OutputError

NO_LOCKS = frozenset({errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOSYS})
"""Error codes of a file system without locks. A file that another command has locked gives EWOULDBLOCK."""


class NoLocks(OutputError):
    """The file system has no locks, so another command could write to the same place unnoticed."""


def write_text(path: Path, text: str) -> None:
    """Replace a file atomically: after a crash it has either its old content or the new, never a part."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file atomically, as `write_text` does."""
    part = path.with_name(f".{path.name}.{uuid4().hex}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)  # exists only if writing failed, for instance on a full disk


def write_json(path: Path, value: Mapping[str, Any], *, indent: int = 2) -> None:
    """Write `value` as strict JSON, atomically, as `write_text` does.

    Raises:
        ValueError: a number is not finite, which JSON can't express.
    """
    write_text(path, json.dumps(value, indent=indent, allow_nan=False) + "\n")


def to_disk(path: Path) -> None:
    """Flush a file to disk. Without this, a power failure can leave a file of zeros."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Yield a temporary folder to fill, which is renamed to `out` on success and removed on failure.

    Args:
        out: absolute path that does not exist or is an empty folder.

    Raises:
        OutputError: the folder can't be written.
    """
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True)
        yield partial
        if out.exists():
            out.rmdir()
        partial.rename(out)
    except (OSError, SafetensorError) as error:
        raise OutputError(f"Can't write into {out}: {error}. Make room, or give another folder.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def unfinished(out: Path) -> list[Path]:
    """Temporary folders of `new_folder` that killed processes left behind."""
    return [*out.parent.glob(f".{out.name}.*.partial")]


def check_unused(folder: Path) -> None:
    """Check that `folder` does not exist or is empty, so that an export mixes with nothing.

    Raises:
        OutputError: the path is a file, or a folder that is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(
            f"{folder} already exists and is not an empty folder. Give another folder, or move this one away."
        )


def lock(path: Path) -> FileLock:
    """The lock at `path`. It is reentrant within a process, and the system releases it when the process ends."""
    return FileLock(path, is_singleton=True, thread_local=False)


def check_locks(path: Path) -> None:
    """Check that the file system of `path` has locks; creates the file.

    `lock` does not report this: without flock, filelock may fall back to the mere existence of a file, which a killed
    process leaves behind.

    Raises:
        NoLocks: the file system has no locks.
    """
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # another process holds it, so locks work
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            raise NoLocks(
                f"{path.parent} can't be locked ({error.strerror}): its file system has no file locks (flock), so two "
                "commands could write there at once. Use a folder on another file system, or have this one mounted "
                "with locks (NFS with its lock service, Lustre with -o flock)."
            ) from error
