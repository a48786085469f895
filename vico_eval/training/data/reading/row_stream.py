"""The rows of a `datasets` data set that comes as a stream, over and over, in lanes that are read apart.

A stream lies in shards, which are files. Its shards are dealt out to lanes, and a process reads the lanes that its
micro-batches come from, never those of others. Which samples a lane has, and in which order, depends on the seed and on
the number of lanes, not on the number of processes.

The order: in every epoch a lane's shards come in an order of their own, and their rows are shuffled block by block. A
`Mark` therefore says where to go on, and what lies in earlier shards is not read again.
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
    """Where a lane goes on."""

    epoch: int = 0
    """How often all its rows were given before."""

    block: int = 0
    """Blocks of this epoch that were given before."""

    turn: int = 0
    """Shards of this epoch that the blocks before took all of, or of which the last was begun."""

    row: int = 0
    """Rows of the shard whose turn it is that blocks before this one took."""

    taken: int = 0
    """Samples of this block that were given."""


class _Row(NamedTuple):
    turn: int
    """Of its shard in the order of the epoch."""

    row: int
    """Its number in the shard."""

    entry: Entry


class RowStream:
    """A stream of rows in lanes."""

    def __init__(
        self, dataset: IterableDataset, name: str, columns: Columns, reading: Reading, *, shuffle_buffer: int
    ) -> None:
        """
        Args:
            dataset: as `datasets` opens it.
            name: of the data set.
            columns, reading: where in a row is what, and how it is read.
            shuffle_buffer: rows that are shuffled together, of all lanes.
        """
        self._shards = dataset.with_format("arrow")
        self._name = name
        self._read = RowReader(columns, reading)
        self._shuffle_buffer = shuffle_buffer

    def num_lanes(self, num_micro_batches: int) -> int:
        """Lanes for steps of so many micro-batches: the most that share them evenly and have a shard each."""
        most = min(num_micro_batches, self._shards.num_shards)
        return max(number for number in range(1, most + 1) if num_micro_batches % number == 0)

    def lane(self, number: int, num_lanes: int, seed: int, mark: Mark) -> Lane:
        """The lane of that number, from a mark of it on."""
        return Lane(self, number, num_lanes, seed, mark)

    def block_size(self, num_lanes: int) -> int:
        """Rows of a lane that are shuffled together."""
        return -(-self._shuffle_buffer // num_lanes)

    def order(self, lane: int, num_lanes: int, seed: int, epoch: int) -> list[int]:
        """A lane's shards in the order of an epoch."""
        own = np.arange(lane, self._shards.num_shards, num_lanes)
        order: list[int] = np.random.default_rng([seed, _SHARDS, epoch, lane]).permutation(own).tolist()
        return order

    def rows(self, shard: int, first: int) -> Iterator[pa.Table]:
        """A shard's rows from one on, a table of one row each; Arrow's batches that lie before it are passed over."""
        return iter(self._shards.shard(self._shards.num_shards, shard).skip(first))

    def entry(self, epoch: int, shard: int, row: int, table: pa.Table) -> Entry:
        """A row's turn."""
        key = f"{self._name}:epoch {epoch}, shard {shard}, row {row}"
        return Entry(key, epoch, partial(self._read, key, table))

    def check_not_empty(self, num_rows: int, lane: int) -> None:
        """Raises ConfigError where a lane had no row in a whole epoch."""
        if not num_rows:
            raise ConfigError(
                f"The data set {self._name} is empty, or shard {lane} and those that are read with it are; expected "
                "rows to train on."
            )


class Lane:
    """Samples of one lane, in order and without end."""

    def __init__(self, stream: RowStream, number: int, num_lanes: int, seed: int, mark: Mark) -> None:
        """From `mark` on."""
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
        """Where the next sample is."""
        return self._next if self._taken == len(self._block) else self._begin._replace(taken=self._taken)

    def take(self, number: int) -> list[Entry]:
        """So many samples more.

        Raises:
            ConfigError: there are none.
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
        """Read the next block, which has a row at least."""
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
        """The rows of the rest of an epoch."""
        order = self._stream.order(self._number, self._num_lanes, self._seed, mark.epoch)
        first = mark.row
        for turn in range(mark.turn, len(order)):
            for row, table in enumerate(self._stream.rows(order[turn], first), start=first):
                yield _Row(turn, row, self._stream.entry(mark.epoch, order[turn], row, table))
            first = 0
