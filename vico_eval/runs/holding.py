"""Locks on a run's folder, held by one command or by one per shard. The system releases them when a process ends."""

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
    """Another command holds the lock."""


@contextmanager
def alone_for_a_moment(path: Path) -> Iterator[None]:
    """Exclude other processes while checking or taking locks on `path`, or tidying its folder; waits for them to
    finish.

    Raises:
        NoLocks: the file system has no locks.
    """
    door = path.with_name(f"{path.name}.door")
    check_locks(door)
    with lock(door):
        yield


def hold(path: Path, shard: Shard | None = None) -> FileLock:
    """Take the lock `path` for one shard, or for the whole run, and return it.

    Several shards can hold it at once if they agree on the number of shards.

    Raises:
        Held: another command holds it, or a part of it.
        NoLocks: the file system has no locks.
    """
    with alone_for_a_moment(path):
        return take(path, shard)


def take(path: Path, shard: Shard | None = None) -> FileLock:
    """Take the lock as `hold` does, for a caller that is inside `alone_for_a_moment`."""
    own = path if shard is None else path.with_name(f"{path.name}.{shard.name}")
    for other in _others(path, own, shard):
        if not is_free(other):
            raise Held(f"another command is using {other}")
    held = lock(own)
    try:
        held.acquire(timeout=0)
    except Timeout as error:
        raise Held(f"another command is using {own}") from error
    return held


def others_at_work(path: Path, shard: Shard) -> bool:
    """True if another shard holds the lock."""
    own = path.with_name(f"{path.name}.{shard.name}")
    return not all(is_free(other) for other in _lock_files(path) if other != own)


def is_free(path: Path) -> bool:
    """True if no other process holds the lock file."""
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
    """The lock files that exclude holding `own`."""
    others = [file for file in _lock_files(path) if file != own]
    if shard is None:
        return others
    return [file for file in others if (found := _SHARD.search(file.name)) is None or int(found[1]) != shard.of]
