"""Indexed sources of samples: JSONL files, selections and concatenations of sources, and their endless order."""

from __future__ import annotations

import itertools
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from vico_eval.errors import ConfigError
from vico_eval.training.data.reading.conversations import Conversation, Reading, from_line
from vico_eval.training.data.reading.corrupt import CorruptSample
from vico_eval.training.data.reading.survey import parsed, survey

MOST_SAMPLES = 1_000_000_000
"""The upper limit on a data set's samples including repetitions, because their indices are held in memory."""


class Source(Protocol):
    """Samples by index. Reading a sample may raise CorruptSample; several threads may read at the same time."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Conversation: ...

    def key(self, index: int) -> str:
        """Return the sample's name, even if the sample can't be read."""


class Entry(NamedTuple):
    """A sample's position in the endless order of a corpus."""

    key: str
    epoch: int
    """Number of earlier passes over the whole corpus."""

    load: Callable[[], Conversation]
    """May raise CorruptSample."""


class JsonLines:
    """The samples of a JSONL file in InternVL's format. It keeps the offsets of the lines in memory, not their text."""

    def __init__(self, path: Path, reading: Reading) -> None:
        """Read the file once to find its lines, without empty ones; raises ConfigError as `survey` does."""
        self.path = path
        self._reading = reading
        self.survey = survey(path)
        self._lines = self.survey.lines

    def __len__(self) -> int:
        return len(self._lines)

    def key(self, index: int) -> str:
        return f"{self.path}:{self._lines[index, 1]}"

    def __getitem__(self, index: int) -> Conversation:
        with self.path.open("rb") as file:
            file.seek(int(self._lines[index, 0]))
            text = file.readline()
        line = parsed(text)
        if isinstance(line, Exception):
            raise CorruptSample("line", f"the line is not JSON: {line}") from line
        return from_line(self.key(index), line, self._reading)


class Chosen:
    """A selection of a source's samples, in a given order and with repetitions."""

    def __init__(self, source: Source, indices: np.ndarray) -> None:
        """`indices`: [samples], int64."""
        self._source = source
        self._indices = indices

    def __len__(self) -> int:
        return len(self._indices)

    def key(self, index: int) -> str:
        return self._source.key(int(self._indices[index]))

    def __getitem__(self, index: int) -> Conversation:
        return self._source[int(self._indices[index])]


class Joined:
    """The concatenation of several sources."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources
        self._ends = list(itertools.accumulate(map(len, sources)))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def key(self, index: int) -> str:
        source, own_index = self._find(index)
        return source.key(own_index)

    def __getitem__(self, index: int) -> Conversation:
        source, own_index = self._find(index)
        return source[own_index]

    def _find(self, index: int) -> tuple[Source, int]:
        number = bisect_right(self._ends, index)
        return self._sources[number], index - (self._ends[number - 1] if number else 0)


def times(indices: np.ndarray, factor: float, name: str) -> np.ndarray:
    """Repeat all indices floor(`factor`) times, and a random subset of them once more for the fraction.

    The result has round(len(indices) * factor) elements. The subset depends only on `name`, so that runs with different
    seeds train on the same samples.

    Args:
        indices: [samples], int64.
        factor: the repeat factor, such as 2 (twice) or 0.5 (a random half).
        name: the data set's name.

    Raises:
        ConfigError: the result has more than `MOST_SAMPLES` elements.
    """
    if len(indices) * factor > MOST_SAMPLES:
        raise ConfigError(
            f"{name} repeated {factor:g} times has {len(indices) * factor:.3g} samples; expected at most "
            f"{MOST_SAMPLES:g}. Lower the factor; training repeats its data anyway until all steps are done."
        )
    whole = int(factor)
    num_more = round(len(indices) * factor) - whole * len(indices)
    more = _rng(name, "share").permutation(len(indices))[:num_more]
    return np.concatenate([np.tile(indices, whole), indices[np.sort(more)]])


def split(num_samples: int, held_out_share: float, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the ascending indices to train on and to hold out; the choice depends only on `name`."""
    order = _rng(name, "held out").permutation(num_samples)
    num_held_out = round(num_samples * held_out_share)
    return np.sort(order[num_held_out:]), np.sort(order[:num_held_out])


def shuffled(source: Source, seed: int, start: int) -> Iterator[Entry]:
    """Yield a source's samples endlessly from position `start` on, each epoch in its own random order."""
    first, offset = divmod(start, len(source))
    for epoch in itertools.count(first):
        order = np.random.default_rng([seed, _EPOCH, epoch]).permutation(len(source))
        for index in order[offset:].tolist():
            yield Entry(source.key(index), epoch, partial(source.__getitem__, index))
        offset = 0


_EPOCH = zlib.crc32(b"epoch")


def _rng(name: str, purpose: str) -> np.random.Generator:
    return np.random.default_rng([zlib.crc32(name.encode()), zlib.crc32(purpose.encode())])
