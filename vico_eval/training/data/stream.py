"""The steps of a training run: distributing samples over micro-batches and preparing them ahead.

A step has M = global_batch / micro_batch micro-batches; of `world` processes, process r takes the micro-batches r,
r + world, ... The contents of a step depend on the seed, the corpus and the two batch sizes, never on `world`.

Indexed samples have one global order, and every process reads the text of all of them. A stream of rows has L lanes,
where L divides M: micro-batch m comes from lane m mod L, and a process reads only the lanes of its own micro-batches.

Bucketing: the endless order of samples (or of a lane's samples) is divided into windows of several steps. Within a
window the samples are sorted by estimated length and divided into micro-batches, to reduce padding, and the
micro-batches are shuffled.
"""

from __future__ import annotations

import itertools
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from vico_eval.errors import ConfigError, MediaError, UserError
from vico_eval.training.data.places import Places
from vico_eval.training.data.prepare import TrainingSample
from vico_eval.training.data.reading.conversations import Conversation
from vico_eval.training.data.reading.corrupt import CorruptSample
from vico_eval.training.data.reading.row_stream import RowStream
from vico_eval.training.data.reading.sources import Entry, Source, shuffled

SAMPLE_ERRORS = (
    UserError,
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""The exceptions that an unusable sample may raise (RecursionError is a RuntimeError)."""

_WINDOW = zlib.crc32(b"window")


class Preparing(Protocol):
    """The interface of `Prepare`, which tests replace."""

    def __call__(self, conversation: Conversation, epoch: int) -> TrainingSample: ...

    def estimate(self, conversation: Conversation) -> int: ...


@dataclass(frozen=True)
class Skipped:
    """A sample that can't be used, in the place where it would have been."""

    key: str

    kind: str
    """The category it is counted in."""

    reason: str


@dataclass(frozen=True, eq=False)
class StepBatch:
    """The samples of one process in one optimizer step."""

    step: int

    epoch: int
    """Number of earlier passes over the corpus, or over this step's lanes for a stream. A step that spans two epochs
    has the earlier one."""

    micro_batches: list[list[TrainingSample | Skipped]]
    """Each with `micro_batch` elements."""


class _Turn(NamedTuple):
    """An entry with its estimated length."""

    entry: Entry
    length: int
    read: Conversation | None
    """The conversation of `entry`. None if it can't be read, or if it contains media, which are not held in memory but
    read again."""


@dataclass(frozen=True)
class _Plan:
    """A process's part of a step, before its media are read."""

    step: int
    epoch: int
    turns: list[_Turn]


class TrainingStream:
    """Training steps, prepared ahead in threads."""

    def __init__(
        self,
        source: Source | RowStream,
        prepare: Preparing,
        *,
        seed: int,
        global_batch: int,
        micro_batch: int,
        rank: int = 0,
        world: int = 1,
        window_steps: int = 8,
        workers: int = 8,
    ) -> None:
        """Set how the corpus is divided into steps and prepared.

        Args:
            source: indexed samples, or a stream of rows.
            prepare: turns a conversation into a sample; usually a `Prepare`.
            seed: seed of the order.
            global_batch: samples per optimizer step, over all processes.
            micro_batch: samples per forward pass.
            rank, world: this process's rank and the number of processes.
            window_steps: steps whose samples are sorted by length together. Every process holds the text of a window's
                samples in memory; for a stream of rows, text and media of two windows of its own lanes.
            workers: threads that prepare samples. Two steps of this process are in memory at the same time.

        Raises:
            ConfigError: the batch sizes don't divide evenly, or there are no samples.
        """
        if global_batch < 1 or micro_batch < 1 or global_batch % (micro_batch * world):
            raise ConfigError(
                f"A global batch of {global_batch} can't be divided among {world} processes in micro-batches of "
                f"{micro_batch}; expected a multiple of {micro_batch * world}."
            )
        if not isinstance(source, RowStream) and not len(source):
            raise ConfigError("There are no samples to train on: the repeat factors of all sources leave none.")
        self._source, self._prepare = source, prepare
        self._seed, self._global_batch, self._micro_batch = seed, global_batch, micro_batch
        self._rank, self._world = rank, world
        self._window_steps, self._workers = window_steps, workers

    def steps(self, start: int = 0, places: Places | None = None) -> Iterator[StepBatch]:
        """Yield steps endlessly from optimizer step `start` on, identical to those of a run from step 0.

        Earlier steps are not prepared. Closing the iterator ends its threads.

        Args:
            start: the first step, counted from 0.
            places: the position in a stream of rows, updated as steps are planned. None reads it from its beginning.
        """
        pending: deque[tuple[_Plan, list[Future[TrainingSample]]]] = deque()
        if isinstance(self._source, RowStream):
            plans = self._plans_of_lanes(self._source, start, places or Places(self._window_steps))
        else:
            plans = self._plans(self._source, start)
        with ThreadPoolExecutor(1, "plan") as planner, ThreadPoolExecutor(self._workers, "prepare") as pool:
            upcoming = planner.submit(next, plans)
            try:
                while True:
                    window = upcoming.result()
                    upcoming = planner.submit(next, plans)
                    for plan in window:
                        pending.append((plan, [pool.submit(self._sample, turn) for turn in plan.turns]))
                        if len(pending) == 2:
                            yield self._batch(*pending.popleft())
            finally:
                upcoming.cancel()
                for _, futures in pending:
                    for future in futures:
                        future.cancel()

    def _plans(self, source: Source, start: int) -> Iterator[list[_Plan]]:
        """Yield this process's steps of an indexed source, window by window."""
        window_size = self._window_steps * self._global_batch
        number, offset = divmod(start, self._window_steps)
        entries = shuffled(source, self._seed, number * window_size)
        for window in itertools.count(number):
            micro_batches = self._bucketed(list(itertools.islice(entries, window_size)), window, lane=0)
            steps = [
                micro_batches[first : first + self._per_step] for first in range(0, len(micro_batches), self._per_step)
            ]
            yield [
                self._plan(window * self._window_steps + step, chosen, chosen[self._rank :: self._world])
                for step, chosen in enumerate(steps)
                if step >= offset
            ]
            offset = 0

    def _plans_of_lanes(self, source: RowStream, start: int, places: Places) -> Iterator[list[_Plan]]:
        """Yield this process's steps of a stream of rows, window by window."""
        num_lanes = source.num_lanes(self._per_step)
        per_lane = self._per_step // num_lanes  # micro-batches per lane and step
        window_size = self._window_steps * per_lane * self._micro_batch
        number, offset = divmod(start, self._window_steps)
        slots = range(self._rank, self._per_step, self._world)
        lanes = {}
        for lane in sorted({slot % num_lanes for slot in slots}):
            known, mark = places.before(number, lane)
            lanes[lane] = source.lane(lane, num_lanes, self._seed, mark)
            for _ in range(known, number):
                lanes[lane].take(window_size)
        for window in itertools.count(number):
            places.note(window, {lane: one.mark for lane, one in lanes.items()})
            turns = {lane: self._bucketed(one.take(window_size), window, lane) for lane, one in lanes.items()}
            plans = []
            for step in range(offset, self._window_steps):
                own = [turns[slot % num_lanes][step * per_lane + slot // num_lanes] for slot in slots]
                plans.append(self._plan(window * self._window_steps + step, own, own))
            yield plans
            offset = 0

    @property
    def _per_step(self) -> int:
        """Micro-batches per step, over all processes."""
        return self._global_batch // self._micro_batch

    def _bucketed(self, entries: Sequence[Entry], window: int, lane: int) -> list[list[_Turn]]:
        """Divide a window's entries into micro-batches."""
        turns = [self._turn(entry) for entry in entries]
        rng = np.random.default_rng([self._seed, _WINDOW, window, lane])
        rows = bucketed([turn.length for turn in turns], self._micro_batch, rng)
        return [[turns[index] for index in row] for row in rows.tolist()]

    def _plan(self, step: int, seen: Sequence[Sequence[_Turn]], own: Sequence[Sequence[_Turn]]) -> _Plan:
        """Plan a step with the micro-batches `own`; its epoch is the earliest among `seen`."""
        epoch = min(turn.entry.epoch for micro_batch in seen for turn in micro_batch)
        return _Plan(step, epoch, [turn for micro_batch in own for turn in micro_batch])

    def _turn(self, entry: Entry) -> _Turn:
        try:
            conversation = entry.load()
            length = self._prepare.estimate(conversation)
        except SAMPLE_ERRORS:
            return _Turn(entry, 0, None)  # its preparation will fail too, and then it is skipped by name
        return _Turn(entry, length, None if conversation.holds_pictures else conversation)

    def _sample(self, turn: _Turn) -> TrainingSample:
        conversation = turn.entry.load() if turn.read is None else turn.read
        return self._prepare(conversation, turn.entry.epoch)

    def _batch(self, plan: _Plan, futures: Sequence[Future[TrainingSample]]) -> StepBatch:
        samples = [_result(turn.entry.key, future) for turn, future in zip(plan.turns, futures, strict=True)]
        size = self._micro_batch
        micro_batches = [samples[first : first + size] for first in range(0, len(samples), size)]
        return StepBatch(plan.step, plan.epoch, micro_batches)


def bucketed(lengths: Sequence[int], micro_batch: int, rng: np.random.Generator) -> np.ndarray:
    """Divide samples into micro-batches of similar length, in random order.

    Args:
        lengths: [samples], where the number of samples is a multiple of `micro_batch`.
        rng: shuffles the micro-batches.

    Returns:
        [micro-batches, micro_batch], int64: positions in `lengths`.
    """
    by_length = np.argsort(np.asarray(lengths), kind="stable")
    return rng.permutation(by_length.reshape(-1, micro_batch))


def _result(key: str, future: Future[TrainingSample]) -> TrainingSample | Skipped:
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, CorruptSample):
        return Skipped(key, error.kind, str(error))
    if isinstance(error, MediaError):
        return Skipped(key, "media", str(error))
    if isinstance(error, Exception):  # no single sample may end a run
        return Skipped(key, type(error).__name__, str(error) or type(error).__name__)
    raise error
