"""Processes that share a run's documents: they end together and agree on when a shard is finished."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

import torch
from accelerate.utils import gather_object
from lmms_eval.api.instance import Instance

from vico_eval.errors import ConfigError
from vico_eval.harnesses.lmms_eval.rows import RowRun
from vico_eval.logs import logger
from vico_eval.runs.shards import Shard, ShardTask


class ShardAnswered(Exception):
    """Ends lmms-eval's evaluation of a row after a shard's documents were answered, because shards aren't scored."""


@contextmanager
def ending_together(world_size: int) -> Iterator[None]:
    """Make all processes of a run end if one of them fails.

    lmms-eval catches an error and ends that process with status 0, and the others would wait for it for hours. If a
    process ends with 1, its launcher stops the others.

    Raises:
        SystemExit: this process failed and there are several.
    """
    try:
        yield
    except Exception as error:
        if world_size == 1:
            raise
        logger.exception(f"{error} All processes of this run are stopped.")
        sys.exit(1)


def check_own_gpus(world_size: int, gpus_per_process: int | None) -> None:
    """Check that a model may be distributed over all GPUs that this process sees.

    Raises:
        ConfigError: other processes see them as well, or there are fewer than requested.
    """
    seen = torch.cuda.device_count()
    if gpus_per_process is not None and seen != gpus_per_process:
        raise ConfigError(
            f"gpus_per_process={gpus_per_process} and this process sees {seen} GPUs; expected as many, of its own. "
            "`vico-eval run --gpus-per-process` starts processes so, where the machine has enough."
        )
    if world_size > 1 and gpus_per_process is None:
        raise ConfigError(
            f"got {world_size} processes and device_map, which gives one model several GPUs; expected one of the two. "
            "With device_map start one process (python -m lmms_eval ...), or let `vico-eval run --gpus-per-process N` "
            "give each process GPUs of its own."
        )


def in_shard(requests: Sequence[Instance], shard: Shard | None) -> list[Instance]:
    """Return the requests about a shard's documents; without a shard, all requests."""
    return [instance for instance in requests if shard is None or shard.has(instance.args[3])]


def note_shard(row: RowRun, tasks: Collection[str], requests: Sequence[Instance], rank: int) -> None:
    """Record in a run's folder that a shard is finished.

    Called by all processes after each has answered its documents.

    Args:
        row: the row of the run.
        tasks: the tasks of all documents, including tasks without documents in the shard.
        requests: the requests of this process.
        rank: the rank of this process.
    """
    # lmms-eval repeats documents so that all processes have the same number.
    asked = {(task, doc_id) for *_, doc_id, task, _ in (instance.args for instance in requests)}
    found = gather_object([(set(tasks), asked, row.failed_documents)])
    if rank != 0:
        return
    documents = Counter(task for task, _ in set().union(*(asked for _, asked, _ in found)))
    failed = Counter(key.rsplit("/", 2)[0] for key in set().union(*(failed for *_, failed in found)))
    names = sorted(set().union(*(names for names, *_ in found)))
    row.run.note_shard({name: ShardTask(documents=documents[name], failed=failed[name]) for name in names})
