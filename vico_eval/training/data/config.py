"""The data part of a training configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag, model_validator

from vico_eval.training.config_files import ClosedConfig

MOST_TILES = 1024
"""The upper limit on an image's tiles; tiling tries every grid shape up to that number."""

MOST_FRAMES = 1024
"""The upper limit on a video's frames, which are held in memory together."""

_Frames = Annotated[int, Field(ge=1, le=MOST_FRAMES)]


class MetaSource(ClosedConfig):
    """The data sets of a meta file of InternVL's training code."""

    meta: Path


class MetaEntry(ClosedConfig):
    """One data set of a meta file, with the field names of InternVL's training code."""

    root: Path
    annotation: Path
    data_augment: bool = False
    repeat_time: float = Field(default=1, ge=0)
    max_dynamic_patch: int | None = Field(default=None, ge=1, le=MOST_TILES)
    length: int | None = None
    """The number of lines that the file's author counted; ignored."""


class ReadingConfig(ClosedConfig):
    """How samples are read, for sources that are not in a meta file."""

    root: Path = Path()
    """The folder that media paths are relative to; by default the current directory."""

    repeat: float = Field(default=1, gt=0)
    """The repeat factor: 2 uses every sample twice, 0.5 a random half of them."""

    augment: bool = False
    """Whether to degrade tiles with JPEG compression."""

    max_tiles: int | None = Field(default=None, ge=1, le=MOST_TILES)
    """Maximum number of tiles that the images of a sample share, without thumbnails. Null means
    `DataConfig.max_tiles`."""


class JsonlSource(ReadingConfig):
    """A JSONL file in InternVL's format."""

    jsonl: Path


class DatasetSource(ReadingConfig):
    """A `datasets` data set with messages and images or videos."""

    dataset: str
    """Its name on the hub, a JSON, JSONL or parquet file, or a folder, including one written by `save_to_disk`."""

    name: str | None = None
    """The configuration to use, for a data set that has several."""

    revision: str | None = None
    """A commit, branch or tag on the hub."""

    split: str = "train"
    messages: str = "messages"
    images: str | None = "images"
    """The column of images. Null if no sample has images or each message part holds its own."""

    videos: str | None = None
    streaming: bool = False
    """Whether to read rows as a stream. Each process reads its own shards (files), of which there should be at least as
    many as processes. A streaming data set must be the only source and can't be repeated."""

    shuffle_buffer: int = Field(default=1000, ge=1)
    """Number of streamed rows shuffled together. Each process holds its share of them in memory."""


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
        custom_error_message="a source must have exactly one of `meta: FILE`, `jsonl: FILE` and `dataset: NAME`",
    ),
]


class DataConfig(ClosedConfig):
    """The training data of a run and how it is prepared."""

    sources: list[SourceConfig] = Field(min_length=1)

    max_length: int = Field(default=32768, ge=1)
    """Maximum number of tokens of a sample with every tile high; longer samples are skipped. The paper uses 32K."""

    max_tiles: int | None = Field(default=None, ge=1, le=MOST_TILES)
    """Maximum number of tiles of an image if its source sets no limit. Null means the checkpoint's limit."""

    video_frames: tuple[_Frames, _Frames] | None = (8, 32)
    """Minimum and maximum number of frames of a video. The number and the frames are drawn again in every epoch, with
    labels such as `Frame-1: `, as in InternVL's training code. Null uses the frames and labels of inference."""

    max_skipped_share: float = Field(default=0.01, ge=0, le=1)
    """Maximum share of skipped samples; the run ends with an error if it is exceeded."""

    workers: int = Field(default=8, ge=1, le=1024)
    """Number of threads per process that prepare samples."""

    window_steps: int = Field(default=8, ge=1)
    """Number of steps whose samples are sorted by length together."""

    packed: bool = False
    """Whether the samples of a micro-batch are packed end to end into one row, each attending only to itself, instead
    of one padded row per sample. The losses are the same."""

    held_out_share: float = Field(default=0, ge=0, lt=1)
    """Share of every source that is held out from training, taken before any repetition."""

    held_out: list[SourceConfig] | None = Field(default=None, min_length=1)
    """Separate held-out sources, instead of a share of the training sources. Their repeat factors apply."""

    @model_validator(mode="after")
    def _frames_rise(self) -> DataConfig:
        if self.video_frames is not None and self.video_frames[0] > self.video_frames[1]:
            raise ValueError(f"video_frames {list(self.video_frames)} is in descending order; expected [fewest, most]")
        return self

    @model_validator(mode="after")
    def _check(self) -> DataConfig:
        if self.held_out is not None and self.held_out_share:
            raise ValueError("held_out_share and held_out are mutually exclusive; leave one of them out")
        streams = [source for source in self.sources if isinstance(source, DatasetSource) and source.streaming]
        if streams and (len(self.sources) > 1 or self.held_out_share or streams[0].repeat != 1):
            raise ValueError(
                "a streaming data set must be the only source, without repeat or held_out_share; "
                "leave streaming out, or name held_out sources"
            )
        if any(isinstance(source, DatasetSource) and source.streaming for source in self.held_out or ()):
            raise ValueError("a held-out source can't be streaming, because its length must be known")
        return self
