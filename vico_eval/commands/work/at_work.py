"""Locks of runs that a command works on. They are beside the runs' folders, because these may be moved aside."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from vico_eval.commands.work.plan import PlannedRun
from vico_eval.errors import ConfigError
from vico_eval.runs.holding import Held, alone_for_a_moment, take
from vico_eval.runs.shards import Shard

LOCKS = ".locks"
"""Folder of the locks, beside the runs."""


@contextmanager
def held(
    runs: Sequence[PlannedRun], shard: Shard | None = None, prepare: Callable[[PlannedRun], None] | None = None
) -> Iterator[None]:
    """Lock runs against other commands. Shards of the same run can be locked at the same time.

    Args:
        runs: the runs to lock.
        shard: the part of their documents.
        prepare: called with each run before other commands may access it.

    Raises:
        ConfigError: another command works on some of them; the message names these.
        NoLocks: the file system doesn't support locks.
    """
    with ExitStack() as stack:
        busy = [run.name for run in runs if not _take(stack, run, shard, prepare)]
        if busy:
            of_shard = "" if shard is None else f" as shard {shard}, or not by shards of {shard.of}"
            raise ConfigError(
                f"another command is working on {', '.join(busy)} in {runs[0].folder.parent}{of_shard}; wait for it, "
                "or stop it. Commands with other rows (--rows) can work in this folder at the same time."
            )
        yield


@contextmanager
def held_if_free(runs: Sequence[PlannedRun]) -> Iterator[list[PlannedRun]]:
    """Lock the runs that no other command works on, and yield these; see `held`."""
    with ExitStack() as stack:
        yield [run for run in runs if _take(stack, run, None, None)]


def lock_file(run: PlannedRun) -> Path:
    """Return a run's lock file for commands; `.lock` in the run's folder is for its processes."""
    return run.folder.parent / LOCKS / f"{run.name}.lock"


def _take(stack: ExitStack, run: PlannedRun, shard: Shard | None, prepare: Callable[[PlannedRun], None] | None) -> bool:
    """Try to lock a run; return whether it succeeded."""
    path = lock_file(run)
    path.parent.mkdir(parents=True, exist_ok=True)
    with alone_for_a_moment(path):
        try:
            lock = take(path, shard)
        except Held:
            return False
        stack.callback(lock.release)
        if prepare is not None:
            prepare(run)
    return True
