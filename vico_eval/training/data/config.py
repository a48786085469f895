"""The data part of a training configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag, model_validator

from vico_eval.training.config_files import ClosedConfig

MOST_TILES = 1024
"""Of an image; the shapes of so many are all tried."""

MOST_FRAMES = 1024
"""Of a video; they are in memory together."""

_Frames = Annotated[int, Field(ge=1, le=MOST_FRAMES)]


class MetaSource(ClosedConfig):
    """The data sets of a meta file of InternVL's training code."""

    meta: Path


class MetaEntry(ClosedConfig):
    """One data set of a meta file, in the words of InternVL's training code."""

    root: Path
    annotation: Path
    data_augment: bool = False
    repeat_time: float = Field(default=1, ge=0)
    max_dynamic_patch: int | None = Field(default=None, ge=1, le=MOST_TILES)
    length: int | None = None
    """Lines of the file as its author counted them; not read."""


class ReadingConfig(ClosedConfig):
    """How samples are read, where no meta file says it."""

    root: Path = Path()
    """What paths of pictures are relative to; by default where the command is run."""

    repeat: float = Field(default=1, gt=0)
    """2 is every sample twice, 0.5 a random half of them."""

    augment: bool = False
    """Whether tiles are degraded as by JPEG."""

    max_tiles: int | None = Field(default=None, ge=1, le=MOST_TILES)
    """Tiles that the images of a sample share, thumbnails not counted; null is `DataConfig.max_tiles`."""


class JsonlSource(ReadingConfig):
    """A JSONL file of InternVL's format."""

    jsonl: Path


class DatasetSource(ReadingConfig):
    """A `datasets` data set with messages and pictures."""

    dataset: str
    """Its name on the hub, a JSON, JSONL or parquet file, or a folder, also one that `save_to_disk` wrote."""

    name: str | None = None
    """Configuration of a data set that has several."""

    revision: str | None = None
    """Commit, branch or tag on the hub."""

    split: str = "train"
    messages: str = "messages"
    images: str | None = "images"
    """Column of the pictures; null where no sample has one, or every part holds its own."""

    videos: str | None = None
    streaming: bool = False
    """Whether rows are read as they come, by each process those of its own shards (files), of which there should be as
    many as processes at least. Such a data set has to be the only source, and can't be repeated."""

    shuffle_buffer: int = Field(default=1000, ge=1)
    """Rows of a stream that are shuffled together; the processes hold them in memory, each its share."""


_KINDS = ("meta", "jsonl", "dataset")


def _kind(value: Any) -> str | None:
    given = value if isinstance(value, dict) else getattr(value, "__dict__", {})
    named = [kind for kind in _KINDS if kind in given]
    return named[0] if len(named) == 1 else None


SourceConfig = Annotated[
    Annotated[MetaSource, Tag("meta")]
    | Annotated[JsonlSource, Tag("jsonl")]
    | Annotated[DatasetSource, Tag("dataset")],
    Discriminator(
        _kind,
        custom_error_type="source",
        custom_error_message="a source is exactly one of `meta: FILE`, `jsonl: FILE` and `dataset: NAME`",
    ),
]


class DataConfig(ClosedConfig):
    """What a run trains on."""

    sources: list[SourceConfig] = Field(min_length=1)

    max_length: int = Field(default=32768, ge=1)
    """Tokens that a sample may have with every tile high; longer ones are skipped. The paper's is 32K."""

    max_tiles: int | None = Field(default=None, ge=1, le=MOST_TILES)
    """Tiles of an image where its source has no limit; null is the checkpoint's."""

    video_frames: tuple[_Frames, _Frames] | None = (8, 32)
    """Fewest and most frames of a video: how many, and which, is drawn anew in every epoch, and their labels are
    `Frame-1: `, as in InternVL's training code. Null shows the frames of inference, with its labels."""

    max_skipped_share: float = Field(default=0.01, ge=0, le=1)
    """The run ends with an error where more of its samples were skipped."""

    workers: int = Field(default=8, ge=1, le=1024)
    """Threads of each process that prepare samples."""

    window_steps: int = Field(default=8, ge=1)
    """Steps whose samples are sorted by length together."""

    packed: bool = False
    """Whether the samples of a micro-batch stand end to end in one row, each attending to itself alone, instead of in a
    row each that is padded to the longest. Losses are the same."""

    held_out_share: float = Field(default=0, ge=0, lt=1)
    """Share of every source that is kept from training, before anything is repeated."""

    held_out: list[SourceConfig] | None = Field(default=None, min_length=1)
    """Sources of their own to measure on, in place of a share; their repeat factors hold."""

    @model_validator(mode="after")
    def _frames_rise(self) -> DataConfig:
        if self.video_frames is not None and self.video_frames[0] > self.video_frames[1]:
            raise ValueError(f"video_frames {list(self.video_frames)} has more frames first; expected [fewest, most]")
        return self

    @model_validator(mode="after")
    def _check(self) -> DataConfig:
        if self.held_out is not None and self.held_out_share:
            raise ValueError("held_out_share and held_out exclude each other; leave one of them out")
        streams = [source for source in self.sources if isinstance(source, DatasetSource) and source.streaming]
        if streams and (len(self.sources) > 1 or self.held_out_share or streams[0].repeat != 1):
            raise ValueError(
                "a streaming data set has to be the only source, without repeat and held_out_share; "
                "leave streaming out, or name held_out sources"
            )
        if any(isinstance(source, DatasetSource) and source.streaming for source in self.held_out or ()):
            raise ValueError("a held-out source can't be streaming: its end has to be known")
        return self
