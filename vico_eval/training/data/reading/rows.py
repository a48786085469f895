"""Indexed access to the rows of `datasets` data sets, and the reader that turns a row into a conversation."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vico_eval.training.data.reading.conversations import Columns, Conversation, Reading, from_row

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset, Features


class Rows:
    """The samples of a `datasets` data set with random access to its rows."""

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
    """Converts Arrow rows to conversations, leaving images and videos as undecoded bytes.

    They are decoded when the sample is prepared, by the code of inference, which rejects truncated files.
    """

    def __init__(self, columns: Columns, reading: Reading) -> None:
        self._columns = columns
        self._reading = reading
        self._features: Features | None = None

    def __call__(self, key: str, table: pa.Table) -> Conversation:
        import datasets  # slow to import; already loaded when there is a table from it

        if self._features is None:
            # Taken from the first row, because a stream does not always know its features in advance.
            features = datasets.Features.from_arrow_schema(table.schema)
            self._features = datasets.Features({name: _undecoded(feature) for name, feature in features.items()})
        # Needed for JSON columns, in which `datasets` stores values of mixed types.
        row = self._features.decode_example(table.to_pylist()[0])
        return from_row(key, row, self._columns, self._reading)


def _undecoded(feature: Any) -> Any:
    """Return the feature with its media left as bytes or paths."""
    import datasets

    if isinstance(feature, dict):
        return {name: _undecoded(part) for name, part in feature.items()}
    if isinstance(feature, (datasets.List, datasets.LargeList)):
        return replace(feature, feature=_undecoded(feature.feature))
    if isinstance(feature, (datasets.Audio, datasets.Image, datasets.Video)):
        return replace(feature, decode=False)
    return feature
