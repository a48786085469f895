"""Opening the data sources that a configuration names."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from vico_eval.errors import ConfigError
from vico_eval.training.data.config import (
    DataConfig,
    DatasetSource,
    JsonlSource,
    MetaEntry,
    MetaSource,
    ReadingConfig,
)
from vico_eval.training.data.reading.conversations import Columns, Reading
from vico_eval.training.data.reading.found import Found, dataset_digest, pictures_digest
from vico_eval.training.data.reading.keys import unread_columns
from vico_eval.training.data.reading.row_stream import RowStream
from vico_eval.training.data.reading.rows import Rows
from vico_eval.training.data.reading.sources import Chosen, Joined, JsonLines, Source, split, times
from vico_eval.training.data.stream import SAMPLE_ERRORS

_SHARDS_ON_DISK = 256
"""The maximum number of shards of a streamed data set that `save_to_disk` wrote."""


@dataclass(frozen=True)
class Corpus:
    """The sources of a configuration."""

    train: Source | RowStream
    held_out: Source | None
    sources: tuple[Callable[[], Found], ...]
    """Functions that inspect each source, training sources first. They read all files, so call them on one process."""

    def found(self) -> list[Found]:
        """Return the current state of the sources."""
        return [look() for look in self.sources]


@dataclass(frozen=True)
class _Part:
    """An indexed source before it is split and repeated."""

    name: str
    source: Source
    repeat: float
    path: str
    """The path of its file, or the name of its data set."""

    digest: Callable[[], str | None]
    unread: dict[str, int]
    settings: dict[str, Any] = field(default_factory=dict)
    """See `Found.settings`."""

    def found(self) -> Found:
        """Return the current state of the source, after reading all its files."""
        return Found(
            name=self.path,
            samples=len(self.source),
            sha256=self.digest(),
            pictures=pictures_digest(self.source),
            settings=self.settings,
            unread=self.unread,
        )


def open_corpus(config: DataConfig) -> Corpus:
    """Open every source.

    Raises:
        ConfigError: a file, column or data set is missing or empty, or no sample is left to hold out.
    """
    first = config.sources[0]
    if isinstance(first, DatasetSource) and first.streaming:
        loaded = _load(first)
        train: Source | RowStream = _stream(first, loaded)
        held_out = Joined([])
        sources: list[Callable[[], Found]] = [partial(_stream_found, first, loaded)]
    else:
        parts = _open(config.sources)
        train, held_out = _split_and_repeat(parts, config.held_out_share)
        sources = [part.found for part in parts]
    apart = [] if config.held_out is None else _open(config.held_out)
    if apart:
        held_out, _ = _split_and_repeat(apart, 0)
    elif config.held_out_share and not len(held_out):
        raise ConfigError(
            f"held_out_share {config.held_out_share} leaves no held-out samples; raise it, or name sources in held_out."
        )
    return Corpus(
        train,
        held_out if len(held_out) else None,
        (*sources, *(part.found for part in apart)),
    )


def _split_and_repeat(parts: Sequence[_Part], held_out_share: float) -> tuple[Joined, Joined]:
    trained, held_out = [], []
    for part in parts:
        kept, apart = split(len(part.source), held_out_share, part.name)
        trained.append(Chosen(part.source, times(kept, part.repeat, part.name)))
        # A data set that is switched off (repeat 0) is not held out either.
        held_out.append(Chosen(part.source, apart if part.repeat else apart[:0]))
    return Joined(trained), Joined(held_out)


def _open(sources: Sequence[MetaSource | JsonlSource | DatasetSource]) -> list[_Part]:
    parts = []
    for source in sources:
        if isinstance(source, MetaSource):
            parts += _open_meta(source.meta)
        elif isinstance(source, JsonlSource):
            parts.append(_lines(source.jsonl.name, source.jsonl, _reading(source), source.repeat))
        else:
            loaded = _load(source)
            rows = Rows(loaded, source.dataset, _columns(source), _reading(source))
            digest = partial(dataset_digest, Path(source.dataset), loaded)
            unread = dict.fromkeys(_unread(source, loaded), len(rows))
            parts.append(_Part(source.dataset, rows, source.repeat, source.dataset, digest, unread))
    return parts


def _open_meta(path: Path) -> list[_Part]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError, MemoryError) as error:
        raise ConfigError(f"The meta file {path} can't be read: {error}. Pass a JSON file.") from error
    if not isinstance(content, dict) or not content:
        raise ConfigError(f"The meta file {path} names no data sets; expected an object with data sets by name.")
    parts = []
    for name, given in content.items():
        try:
            entry = MetaEntry.model_validate(given)
        except ValidationError as error:
            problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            known = ", ".join(MetaEntry.model_fields)
            raise ConfigError(
                f"Data set {name!r} of the meta file {path} is not valid: {problems}. The fields are {known}."
            ) from error
        reading = Reading(root=entry.root, max_tiles=entry.max_dynamic_patch, augment=entry.data_augment)
        parts.append(_lines(name, entry.annotation, reading, entry.repeat_time, entry))
    return parts


def _lines(name: str, path: Path, reading: Reading, repeat: float, entry: MetaEntry | None = None) -> _Part:
    lines = JsonLines(path, reading)
    settings = {} if entry is None else {"in meta file": name, **entry.model_dump(mode="json", exclude={"length"})}
    return _Part(name, lines, repeat, str(path), lambda: lines.survey.sha256, lines.survey.unread, settings)


def _stream(source: DatasetSource, loaded: Any) -> RowStream:
    return RowStream(loaded, source.dataset, _columns(source), _reading(source), shuffle_buffer=source.shuffle_buffer)


def _stream_found(source: DatasetSource, loaded: Any) -> Found:
    return Found(
        name=source.dataset,
        samples=None,
        sha256=dataset_digest(Path(source.dataset), loaded),
        pictures=None,
        settings={},
        unread=dict.fromkeys(_unread(source, loaded)),
    )


def _unread(source: DatasetSource, loaded: Any) -> list[str]:
    """Return the ignored columns; a stream does not always know its columns."""
    read = [name for name in (source.messages, source.images, source.videos) if name]
    return unread_columns(loaded.column_names or [], read)


def _load(source: DatasetSource) -> Any:
    """Load a `datasets` data set, indexed or as a stream."""
    import datasets  # slow to import, and needed by this kind of source only

    path = Path(source.dataset)
    options: dict[str, Any] = {"split": source.split, "streaming": source.streaming}
    try:
        if path.is_file():
            builder = "parquet" if path.suffix == ".parquet" else "json"
            loaded = datasets.load_dataset(builder, data_files=str(path), trust_remote_code=False, **options)
        elif (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
            loaded = datasets.load_from_disk(source.dataset)
            loaded = loaded[source.split] if isinstance(loaded, datasets.DatasetDict) else loaded
            if source.streaming:  # such a data set has random access, so its shards need not be its files
                loaded = loaded.to_iterable_dataset(num_shards=min(len(loaded), _SHARDS_ON_DISK) or 1)
        else:
            loaded = datasets.load_dataset(
                source.dataset, source.name, revision=source.revision, trust_remote_code=False, **options
            )
    except (*SAMPLE_ERRORS, ImportError, datasets.exceptions.DatasetsError) as error:
        raise ConfigError(f"The data set {source.dataset} can't be loaded: {error or type(error).__name__}") from error
    wanted = [name for name in (source.messages, source.images, source.videos) if name]
    if missing := [name for name in wanted if name not in (loaded.column_names or wanted)]:
        raise ConfigError(
            f"The data set {source.dataset} has no column {', '.join(missing)}; it has "
            f"{', '.join(loaded.column_names)}. Name its columns with `messages`, `images` and `videos`, or null for "
            "none."
        )
    return loaded


def _columns(source: DatasetSource) -> Columns:
    return Columns(messages=source.messages, images=source.images, videos=source.videos)


def _reading(source: ReadingConfig) -> Reading:
    return Reading(root=source.root, max_tiles=source.max_tiles, augment=source.augment)
