"""Samples by number: JSONL files, and parts, repeats and joins of sources; and the endless order of all of them."""

from __future__ import annotations

import itertools
import json
import zlib
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from tqdm import tqdm

from vico_eval.errors import ConfigError
from vico_eval.training.flash.corpus.conversations import Conversation, CorruptSample, Reading, from_line


class Source(Protocol):
    """Samples by number. Reading one may raise CorruptSample; several threads may read at once."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Conversation: ...

    def key(self, index: int) -> str:
        """Names the sample, also where it can't be read."""


class Entry(NamedTuple):
    """A sample's turn in the endless order of a corpus."""

    key: str
    epoch: int
    """How often the whole corpus was seen before."""

    load: Callable[[], Conversation]
    """May raise CorruptSample."""


class JsonLines:
    """The samples of a JSONL file of InternVL's format; holds where its lines are, not what they say."""

    def __init__(self, path: Path, reading: Reading) -> None:
        """Reads the file once, to find its lines; empty ones are not counted.

        Raises:
            ConfigError: the file can't be read or has no line.
        """
        self.path = path
        self._reading = reading
        try:
            self._lines = _find_lines(path)  # [samples, 2]: offset in bytes, number of the line from 1
        except OSError as error:
            raise ConfigError(f"The samples of {path} can't be read: {error}. Pass a JSONL file.") from error
        if not len(self._lines):
            raise ConfigError(f"{path} has no samples; expected a JSONL file with one on each line.")

    def __len__(self) -> int:
        return len(self._lines)

    def key(self, index: int) -> str:
        return f"{self.path}:{self._lines[index, 1]}"

    def __getitem__(self, index: int) -> Conversation:
        with self.path.open("rb") as file:
            file.seek(int(self._lines[index, 0]))
            text = file.readline()
        try:
            line = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise CorruptSample("line", f"the line is no JSON: {error}") from error
        return from_line(self.key(index), line, self._reading)


class Chosen:
    """Some samples of a source, in a given order; one may come several times."""

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
    """Sources one after another."""

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
    """Every index as often as the whole part of `factor` says, and a random share of them once more.

    The result has round(len(indices) * factor) elements. The share is drawn by `name` alone, so that runs of different
    seeds train on the same samples.

    Args:
        indices: [samples], int64.
        factor: 2 is twice, 0.5 a half.
        name: of the data set.
    """
    whole = int(factor)
    num_more = round(len(indices) * factor) - whole * len(indices)
    more = _rng(name, "share").permutation(len(indices))[:num_more]
    return np.concatenate([np.tile(indices, whole), indices[np.sort(more)]])


def split(num_samples: int, held_out_share: float, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Which samples are trained on and which are held out, both ascending; drawn by `name` alone."""
    order = _rng(name, "held out").permutation(num_samples)
    num_held_out = round(num_samples * held_out_share)
    return np.sort(order[num_held_out:]), np.sort(order[:num_held_out])


def shuffled(source: Source, seed: int, start: int) -> Iterator[Entry]:
    """A source from the `start`-th sample on, for ever: epochs follow each other, each in an order of its own."""
    first, offset = divmod(start, len(source))
    for epoch in itertools.count(first):
        order = np.random.default_rng([seed, _EPOCH, epoch]).permutation(len(source))
        for index in order[offset:].tolist():
            yield Entry(source.key(index), epoch, partial(source.__getitem__, index))
        offset = 0


_EPOCH = zlib.crc32(b"epoch")


def _rng(name: str, purpose: str) -> np.random.Generator:
    return np.random.default_rng([zlib.crc32(name.encode()), zlib.crc32(purpose.encode())])


def _find_lines(path: Path) -> np.ndarray:
    lines = array("q")  # a list of tuples would take ten times the memory
    offset = 0
    with (
        path.open("rb") as file,
        # None: no bar where stderr is no terminal.
        tqdm(total=path.stat().st_size, unit="B", unit_scale=True, desc=path.name, disable=None) as progress,
    ):
        for number, line in enumerate(file, start=1):
            if not line.isspace():
                lines.extend((offset, number))
            offset += len(line)
            if number % 4096 == 0:
                progress.update(offset - progress.n)
        progress.update(offset - progress.n)
    return np.array(lines).reshape(-1, 2)
