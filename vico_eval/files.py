"""Files whose loss would hurt: written whole or not at all, and held by one process."""

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
"""What a file system without locks answers. One that another command has locked answers EWOULDBLOCK."""


class NoLocks(OutputError):
    """A file system can't say whether another command works on it."""


def write_text(path: Path, text: str) -> None:
    """Replace a file at once: whenever the machine stops, it has its old content or the new one, never half of one."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """As `write_text`."""
    part = path.with_name(f".{path.name}.{uuid4().hex}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)  # still there only where the disk was full


def write_json(path: Path, value: Mapping[str, Any], *, indent: int = 2) -> None:
    """`value` as strict JSON, written as by `write_text`.

    Raises:
        ValueError: a number that is not finite, which JSON has no word for.
    """
    write_text(path, json.dumps(value, indent=indent, allow_nan=False) + "\n")


def to_disk(path: Path) -> None:
    """Wait until a file is on the disk: or a machine that loses its power leaves zeros under its name."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """An empty folder to fill, which becomes `out` when everything is written, and goes where that fails.

    Args:
        out: absolute; nothing is there, or an empty folder.

    Raises:
        OutputError: it can't be written.
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
    """What processes that were killed have left of `new_folder`."""
    return [*out.parent.glob(f".{out.name}.*.partial")]


def check_unused(folder: Path) -> None:
    """Raises OutputError if something is there that an export would mix with."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(f"{folder} is there already and not an empty folder. Give a new one, or move it away.")


def lock(path: Path) -> FileLock:
    """The lock of that file: one process has it at a time, as often as it likes; the system frees it when that ends."""
    return FileLock(path, is_singleton=True, thread_local=False)


def check_locks(path: Path) -> None:
    """See that files beside `path`, which is made, can be locked.

    `lock` does not say so: where there is no flock, filelock can take a file's being there for a lock, which a killed
    process leaves behind.

    Raises:
        NoLocks: the file system has no locks.
    """
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # by somebody else, so it can be locked
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            raise NoLocks(
                f"{path.parent} can't be locked ({error.strerror}): its file system has no file locks (flock), without "
                "which two commands could write there at once. Work in a folder on another file system, or have this "
                "one mounted with locks (NFS with its lock service, Lustre with -o flock)."
            ) from error
