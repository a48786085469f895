"""Who works in a run's folder: one command, or one for each shard. The system frees what an ended process held."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from vico_eval.errors import OutputError
from vico_eval.files import check_locks, lock
from vico_eval.runs.shards import Shard

_SHARD = re.compile(r"\.shard\d+of(\d+)$")


class Held(OutputError):
    """Another command works on it."""


@contextmanager
def alone_for_a_moment(path: Path) -> Iterator[None]:
    """Waits until nobody else looks at who has `path`, or puts in order what is there.

    Raises:
        NoLocks: the file system has no locks.
    """
    door = path.with_name(f"{path.name}.door")
    check_locks(door)
    with lock(door):
        yield


def hold(path: Path, shard: Shard | None = None) -> FileLock:
    """Holds what the lock file `path` stands for, for one shard or for all; the lock, which is released at the end.

    Shards hold it beside each other, as long as all are of the same number of shards.

    Raises:
        Held: another command has it, or a part of it.
        NoLocks: the file system has no locks.
    """
    with alone_for_a_moment(path):
        return take(path, shard)


def take(path: Path, shard: Shard | None = None) -> FileLock:
    """As `hold`, for who is alone with `path` already."""
    own = path if shard is None else path.with_name(f"{path.name}.{shard.name}")
    for other in _others(path, own, shard):
        if not is_free(other):
            raise Held(f"another command holds {other}")
    held = lock(own)
    try:
        held.acquire(timeout=0)
    except Timeout as error:
        raise Held(f"another command holds {own}") from error
    return held


def others_at_work(path: Path, shard: Shard) -> bool:
    """Whether other shards are held than this one."""
    own = path.with_name(f"{path.name}.{shard.name}")
    return not all(is_free(other) for other in _lock_files(path) if other != own)


def is_free(path: Path) -> bool:
    """Whether nobody else holds a lock file."""
    held = lock(path)
    try:
        with held.acquire(timeout=0):
            return True
    except Timeout:
        return False


def _lock_files(path: Path) -> list[Path]:
    found = [path, *sorted(path.parent.glob(f"{path.name}.shard*"))]
    return [file for file in found if file == path or _SHARD.search(file.name)]


def _others(path: Path, own: Path, shard: Shard | None) -> list[Path]:
    """The lock files that nobody may hold beside `own`."""
    others = [file for file in _lock_files(path) if file != own]
    if shard is None:
        return others
    return [file for file in others if (found := _SHARD.search(file.name)) is None or int(found[1]) != shard.of]
