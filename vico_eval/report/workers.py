"""Two processes beside this one for a large report: they read its runs, then draw its pictures."""

import gc
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from itertools import accumulate
from multiprocessing import get_context
from pathlib import Path

NUM_WORKERS = 2

_WORTH_PROCESSES = 50_000_000
"""Bytes of samples whose reading takes longer than starting processes."""


@contextmanager
def workers_for(folders: Sequence[Path]) -> Iterator[Executor | None]:
    """Two processes until the end of the block; None where the runs in `folders` are small."""
    # Ends at the first run that is too much: to look for all files of large ones takes long.
    sizes = accumulate(file.stat().st_size for folder in folders for file in folder.rglob("*.jsonl"))
    if all(size < _WORTH_PROCESSES for size in sizes):
        yield None
        return
    # Spawned: a copy of a process that has threads, as pandas' libraries start them, may hang. They end before cycles
    # among their objects could fill the memory.
    with ProcessPoolExecutor(NUM_WORKERS, mp_context=get_context("spawn"), initializer=gc.disable) as pool:
        yield pool


@contextmanager
def without_garbage_search() -> Iterator[None]:
    """For work that makes many objects without cycles, of which Python's search for them takes a third of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
