"""What the sources of a corpus were when a run began: a run that goes on has to find the same."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from vico_eval.digests import sha256_of
from vico_eval.engine.requests import ImageInput, VideoInput
from vico_eval.errors import ConfigError
from vico_eval.training.data.reading.conversations import Conversation
from vico_eval.training.data.reading.sources import Source
from vico_eval.training.data.stream import SAMPLE_ERRORS

NUM_LOOKED_AT = 64
"""Samples of a source whose pictures are looked at, evenly spaced: all of a small source, a test of a large one."""

_HEAD_BYTES = 1 << 22
_READERS = 8


@dataclass(frozen=True, kw_only=True)
class Found:
    """A source as it lies there."""

    name: str
    """Of its file or data set, with its folders."""

    samples: int | None
    """None in a stream."""

    sha256: str | None
    """Of its files; of a data set from the hub, of its revision. None where neither is known."""

    pictures: str | None
    """Of the files that some of its samples name, by `NUM_LOOKED_AT`; None where they name none."""

    settings: dict[str, Any]
    """What a meta file says about it; empty where the run's configuration says it, which is compared by itself."""

    unread: Mapping[str, int | None]
    """In how many samples each key is that nothing is done with; None in a stream."""

    def identity(self) -> dict[str, Any]:
        """What must not change while a run lasts."""
        known = {"samples": self.samples, "sha256": self.sha256, "pictures": self.pictures}
        return {"name": self.name, **known, "settings": self.settings}


def files_digest(files: Iterable[Path]) -> str:
    """A digest of the names and the whole content of files, in the order of their names.

    Raises:
        ConfigError: one can't be read.
    """
    ordered = sorted(files)
    try:
        with ThreadPoolExecutor(_READERS, "digest") as pool:
            digests = list(pool.map(sha256_of, ordered))
    except OSError as error:
        raise ConfigError(f"The data can't be read: {error}.") from error
    named = (f"{file.name}\0{digest}\n" for file, digest in zip(ordered, digests, strict=True))
    return sha256("".join(named).encode(errors="surrogateescape")).hexdigest()


def dataset_digest(path: Path, loaded: Any) -> str | None:
    """A digest of a `datasets` data set that was loaded from `path`, or from the hub where there is no such path."""
    if path.is_file():
        return files_digest([path])
    if path.is_dir():
        inside = (file for file in path.rglob("*") if file.is_file())
        return files_digest(file for file in inside if not file.name.startswith("."))
    # The library prepares each revision in a folder of its own, which is named after it.
    prepared = sorted({Path(file["filename"]).parent.name for file in getattr(loaded, "cache_files", ())})
    return sha256("/".join(prepared).encode()).hexdigest() if prepared else None


def pictures_digest(source: Source) -> str | None:
    """A digest of the files that evenly spaced samples name: of each its size and its first 4 MiB."""
    places = np.unique(np.linspace(0, len(source) - 1, min(NUM_LOOKED_AT, len(source))).astype(np.int64))
    digest = sha256()
    seen = False
    for index in places.tolist():
        for path in _paths(source, index):
            seen = True
            digest.update(_picture(path))
    return digest.hexdigest() if seen else None


def _paths(source: Source, index: int) -> Sequence[Path]:
    try:
        conversation: Conversation = source[index]
    except SAMPLE_ERRORS:
        return ()  # it is skipped when its turn comes
    parts = (part for message in conversation.messages for part in message.content)
    media = (part.source for part in parts if isinstance(part, (ImageInput, VideoInput)))
    return [Path(one) for one in media if isinstance(one, (str, Path)) and "://" not in str(one)]


def _picture(path: Path) -> bytes:
    """What tells a picture from another; a folder of frames by their names and sizes."""
    try:
        if path.is_dir():
            frames = sorted((entry.name, entry.stat().st_size) for entry in os.scandir(path))
            return repr(frames).encode(errors="surrogateescape")
        with path.open("rb") as file:
            return sha256(file.read(_HEAD_BYTES)).digest() + str(path.stat().st_size).encode()
    except (OSError, ValueError):
        return b"missing"
