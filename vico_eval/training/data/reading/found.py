"""The state of a corpus's sources when a run began. A resumed run must find the same."""

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
"""Number of evenly spaced samples of a source whose media files are digested; a smaller source is digested whole."""

_HEAD_BYTES = 1 << 22
_READERS = 8


@dataclass(frozen=True, kw_only=True)
class Found:
    """The current state of a source."""

    name: str
    """The path of its file, or the name of its data set."""

    samples: int | None
    """The number of samples; None for a stream."""

    sha256: str | None
    """Digest of its files, or of the revision for a data set from the hub. None if neither is known."""

    pictures: str | None
    """Digest of the media files of `NUM_LOOKED_AT` of its samples; None if they name no files."""

    settings: dict[str, Any]
    """Its settings in a meta file; empty if they are in the run's configuration, which is compared separately."""

    unread: Mapping[str, int | None]
    """The ignored keys, each with the number of samples that have it; None for a stream."""

    def identity(self) -> dict[str, Any]:
        """Return the values that must not change over the course of a run."""
        known = {"samples": self.samples, "sha256": self.sha256, "pictures": self.pictures}
        return {"name": self.name, **known, "settings": self.settings}


def files_digest(files: Iterable[Path]) -> str:
    """Return a digest of the files' names and full contents, in the order of their names.

    Raises:
        ConfigError: a file can't be read.
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
    """Return a digest of a `datasets` data set loaded from `path`, or from the hub if there is no such path."""
    if path.is_file():
        return files_digest([path])
    if path.is_dir():
        inside = (file for file in path.rglob("*") if file.is_file())
        return files_digest(file for file in inside if not file.name.startswith("."))
    # The library prepares each revision in its own folder, which is named after the revision.
    prepared = sorted({Path(file["filename"]).parent.name for file in getattr(loaded, "cache_files", ())})
    return sha256("/".join(prepared).encode()).hexdigest() if prepared else None


def pictures_digest(source: Source) -> str | None:
    """Return a digest of the media files of evenly spaced samples; each contributes its size and its first 4 MiB."""
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
        return ()  # the training skips it when it reaches it
    parts = (part for message in conversation.messages for part in message.content)
    media = (part.source for part in parts if isinstance(part, (ImageInput, VideoInput)))
    return [Path(one) for one in media if isinstance(one, (str, Path)) and "://" not in str(one)]


def _picture(path: Path) -> bytes:
    """Return bytes that identify a media file; for a folder of frames, their names and sizes."""
    try:
        if path.is_dir():
            frames = sorted((entry.name, entry.stat().st_size) for entry in os.scandir(path))
            return repr(frames).encode(errors="surrogateescape")
        with path.open("rb") as file:
            return sha256(file.read(_HEAD_BYTES)).digest() + str(path.stat().st_size).encode()
    except (OSError, ValueError):
        return b"missing"
