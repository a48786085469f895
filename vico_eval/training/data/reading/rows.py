"""The rows of `datasets` data sets as samples by number, and how any row is read."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vico_eval.training.data.reading.conversations import Columns, Conversation, Reading, from_row

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset, Features


class Rows:
    """The samples of a `datasets` data set whose rows have numbers."""

    def __init__(self, dataset: Dataset, name: str, columns: Columns, reading: Reading) -> None:
        self._rows = dataset.with_format("arrow")
        self._name = name
        self._read = RowReader(columns, reading)

    def __len__(self) -> int:
        return len(self._rows)

    def key(self, index: int) -> str:
        return f"{self._name}:{index}"

    def __getitem__(self, index: int) -> Conversation:
        return self._read(self.key(index), self._rows[index])


class RowReader:
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
