"""The rows of `datasets` data sets as samples, by number or in a stream."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from vico_eval.errors import ConfigError
from vico_eval.training.data.reading.conversations import Columns, Conversation, Reading, from_row
from vico_eval.training.data.reading.sources import Entry

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset, Features, IterableDataset


class Rows:
    """The samples of a `datasets` data set whose rows have numbers."""

    def __init__(self, dataset: Dataset, name: str, columns: Columns, reading: Reading) -> None:
        self._rows = dataset.with_format("arrow")
        self._name = name
        self._read = _RowReader(columns, reading)

    def __len__(self) -> int:
        return len(self._rows)

    def key(self, index: int) -> str:
        return f"{self._name}:{index}"

    def __getitem__(self, index: int) -> Conversation:
        return self._read(self.key(index), self._rows[index])


class RowStream:
    """The samples of a `datasets` data set that comes as a stream, over and over."""

    def __init__(
        self, dataset: IterableDataset, name: str, columns: Columns, reading: Reading, *, shuffle_buffer: int
    ) -> None:
        self._rows = dataset
        self._name = name
        self._read = _RowReader(columns, reading)
        self._shuffle_buffer = shuffle_buffer

    def entries(self, seed: int, start: int) -> Iterator[Entry]:
        """From the `start`-th sample on, for ever. Earlier ones are read and dropped.

        Raises:
            ConfigError: the stream is empty.
        """
        return itertools.islice(self._endless(seed), start, None)

    def _endless(self, seed: int) -> Iterator[Entry]:
        rows = self._rows.shuffle(seed=seed, buffer_size=self._shuffle_buffer).with_format("arrow")
        for epoch in itertools.count():
            rows.set_epoch(epoch)
            number = -1
            for number, table in enumerate(rows):
                # The number in the shuffled stream: `datasets` does not say where a row lay.
                key = f"{self._name}:epoch {epoch}, row {number}"
                yield Entry(key, epoch, partial(self._read, key, table))
            if number < 0:
                raise ConfigError(f"The data set {self._name} is empty; expected rows to train on.")


class _RowReader:
    """Makes conversations of rows in Arrow's form, in which pictures stay the bytes that they are.

    They are decoded when the sample is prepared, by the code that inference uses, which refuses cut-off ones.
    """

    def __init__(self, columns: Columns, reading: Reading) -> None:
        self._columns = columns
        self._reading = reading
        self._features: Features | None = None

    def __call__(self, key: str, table: pa.Table) -> Conversation:
        import datasets  # slow to import, and loaded already where there is a table of it

        if self._features is None:
            # Of the first row: a stream does not always know its features before.
            features = datasets.Features.from_arrow_schema(table.schema)
            self._features = datasets.Features({name: _undecoded(feature) for name, feature in features.items()})
        # Needed for JSON columns, in which `datasets` keeps contents of mixed types.
        row = self._features.decode_example(table.to_pylist()[0])
        return from_row(key, row, self._columns, self._reading)


def _undecoded(feature: Any) -> Any:
    """A feature whose pictures are given as their bytes or path."""
    import datasets

    if isinstance(feature, dict):
        return {name: _undecoded(part) for name, part in feature.items()}
    if isinstance(feature, (datasets.List, datasets.LargeList)):
        return replace(feature, feature=_undecoded(feature.feature))
    if isinstance(feature, (datasets.Audio, datasets.Image, datasets.Video)):
        return replace(feature, decode=False)
    return feature
