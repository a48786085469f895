"""Endless streaming of a `datasets` data set in lanes that are read independently.

A stream consists of shards, which are files. The shards are distributed over lanes, and a process reads only the lanes
of its own micro-batches. The samples of a lane and their order depend on the seed and the number of lanes, not on the
number of processes.

In every epoch a lane's shards are shuffled, and their rows are shuffled in blocks. A `Mark` records the position in a
lane, so that a resumed run does not read earlier shards again.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vico_eval.errors import ConfigError
from vico_eval.training.data.reading.conversations import Columns, Reading
from vico_eval.training.data.reading.rows import RowReader
from vico_eval.training.data.reading.sources import Entry

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import IterableDataset

_SHARDS = zlib.crc32(b"shards")
_BLOCK = zlib.crc32(b"block")


class Mark(NamedTuple):
    """A position in a lane, at which reading continues."""

    epoch: int = 0
    """Number of earlier passes over all its rows."""

    block: int = 0
    """Number of earlier blocks in this epoch."""

    turn: int = 0
    """Position, in the epoch's order, of the shard from which earlier blocks took their last row."""

    row: int = 0
    """Number of rows of that shard taken by earlier blocks."""

    taken: int = 0
    """Number of samples of this block already returned."""


class _Row(NamedTuple):
    turn: int
    """Position of its shard in the order of the epoch."""

    row: int
    """Index in the shard."""

    entry: Entry


class RowStream:
    """A stream of rows, divided into lanes."""

    def __init__(
        self, dataset: IterableDataset, name: str, columns: Columns, reading: Reading, *, shuffle_buffer: int
    ) -> None:
        """
        Args:
            dataset: the opened data set.
            name: its name.
            columns, reading: the columns of a row and how they are read.
            shuffle_buffer: number of rows shuffled together, over all lanes.
        """
        self._shards = dataset.with_format("arrow")
        self._name = name
        self._read = RowReader(columns, reading)
        self._shuffle_buffer = shuffle_buffer

    def num_lanes(self, num_micro_batches: int) -> int:
        """Return the largest number of lanes that divides the micro-batches of a step and leaves a shard for each."""
        most = min(num_micro_batches, self._shards.num_shards)
        return max(number for number in range(1, most + 1) if num_micro_batches % number == 0)

    def lane(self, number: int, num_lanes: int, seed: int, mark: Mark) -> Lane:
        """Return a lane that starts at a mark."""
        return Lane(self, number, num_lanes, seed, mark)

    def block_size(self, num_lanes: int) -> int:
        """Return the number of rows of a lane that are shuffled together."""
        return -(-self._shuffle_buffer // num_lanes)

    def order(self, lane: int, num_lanes: int, seed: int, epoch: int) -> list[int]:
        """Return a lane's shards in their order for an epoch."""
        own = np.arange(lane, self._shards.num_shards, num_lanes)
        order: list[int] = np.random.default_rng([seed, _SHARDS, epoch, lane]).permutation(own).tolist()
        return order

    def rows(self, shard: int, first: int) -> Iterator[pa.Table]:
        """Iterate over a shard's rows from `first` on, as one-row tables; Arrow skips the batches before it."""
        return iter(self._shards.shard(self._shards.num_shards, shard).skip(first))

    def entry(self, epoch: int, shard: int, row: int, table: pa.Table) -> Entry:
        """Return the entry of a row."""
        key = f"{self._name}:epoch {epoch}, shard {shard}, row {row}"
        return Entry(key, epoch, partial(self._read, key, table))

    def check_not_empty(self, num_rows: int, lane: int) -> None:
        """Raise ConfigError if a lane had no rows in a whole epoch."""
        if not num_rows:
            raise ConfigError(
                f"The data set {self._name} is empty, or shard {lane} and all shards read with it are; expected rows "
                "to train on."
            )


class Lane:
    """The endless, ordered samples of one lane."""

    def __init__(self, stream: RowStream, number: int, num_lanes: int, seed: int, mark: Mark) -> None:
        """Start at `mark`."""
        self._stream, self._number, self._num_lanes, self._seed = stream, number, num_lanes, seed
        self._size = stream.block_size(num_lanes)
        self._begin = self._next = mark._replace(taken=0)
        self._rows = self._rows_from(self._next)
        self._block: list[Entry] = []
        self._taken = 0
        if mark.taken:
            self._fill()
            self._taken = mark.taken

    @property
    def mark(self) -> Mark:
        """The position of the next sample."""
        return self._next if self._taken == len(self._block) else self._begin._replace(taken=self._taken)

    def take(self, number: int) -> list[Entry]:
        """Return the next `number` samples.

        Raises:
            ConfigError: the lane is empty.
        """
        entries: list[Entry] = []
        while len(entries) < number:
            if self._taken == len(self._block):
                self._fill()
            chosen = self._block[self._taken : self._taken + number - len(entries)]
            self._taken += len(chosen)
            entries += chosen
        return entries

    def _fill(self) -> None:
        """Read the next non-empty block."""
        self._begin, self._block, self._taken = self._next, [], 0
        while not self._block:
            first = self._begin
            read = list(itertools.islice(self._rows, self._size))
            if not read:
                self._stream.check_not_empty(first.block, self._number)
                self._begin = Mark(epoch=first.epoch + 1)
                self._rows = self._rows_from(self._begin)
                continue
            rng = np.random.default_rng([self._seed, _BLOCK, first.epoch, self._number, first.block])
            self._block = [read[place].entry for place in rng.permutation(len(read)).tolist()]
            self._next = Mark(first.epoch, first.block + 1, read[-1].turn, read[-1].row + 1)

    def _rows_from(self, mark: Mark) -> Iterator[_Row]:
        """Yield the remaining rows of an epoch."""
        order = self._stream.order(self._number, self._num_lanes, self._seed, mark.epoch)
        first = mark.row
        for turn in range(mark.turn, len(order)):
            for row, table in enumerate(self._stream.rows(order[turn], first), start=first):
                yield _Row(turn, row, self._stream.entry(mark.epoch, order[turn], row, table))
            first = 0
