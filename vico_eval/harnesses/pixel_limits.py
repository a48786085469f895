"""What each toolkit's own adapter of Qwen-VL shows: pixels of an image, frames of a video (`models/pixel_limits.yaml`).

Imports neither torch nor transformers.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from pydantic import Field, TypeAdapter, model_validator

from vico_eval.paths import models_dir
from vico_eval.schemas import Closed
from vico_eval.yaml_files import read_yaml


class PixelLimits(NamedTuple):
    """Between which numbers of pixels an image is resized; None leaves it to the checkpoint."""

    min_pixels: int | None
    max_pixels: int | None


class _Limits(Closed):
    """Limits, and where they stand in the toolkit's code."""

    min_pixels: int = Field(ge=1)
    max_pixels: int = Field(ge=1)
    num_frames: int | None = Field(default=None, ge=1)
    source: str = Field(min_length=1)

    @model_validator(mode="after")
    def _in_order(self) -> _Limits:
        if self.min_pixels > self.max_pixels:
            raise ValueError(f"min_pixels {self.min_pixels} is above max_pixels {self.max_pixels}; expected no more")
        return self


class _OfKind(Closed):
    """Those of one kind of checkpoint."""

    all: _Limits
    data_sets: dict[str, _Limits] = Field(default_factory=dict)
    """By the toolkit's own names."""


def pixel_limits(
    harness: str, kind: str, task: str, *, min_pixels: int | None = None, max_pixels: int | None = None
) -> PixelLimits:
    """The limits of an image of a benchmark.

    Args:
        harness: `vico_eval.runs.schema.LMMS_EVAL` or `VLMEVALKIT`.
        kind: of checkpoint, as the names of lmms-eval's models end.
        task: its name in the toolkit.
        min_pixels, max_pixels: the user's own, for every benchmark; where only one is given, the toolkit's other one
            gives way to it.

    Returns:
        None for both where the toolkit limits no pixels, as for InternVL, which has tiles.
    """
    of_kind = _table()[harness].get(kind)
    if of_kind is None:
        return PixelLimits(min_pixels, max_pixels)
    own = of_kind.data_sets.get(task, of_kind.all)
    lowest = min(own.min_pixels, max_pixels or own.min_pixels) if min_pixels is None else min_pixels
    highest = max(own.max_pixels, lowest) if max_pixels is None else max_pixels
    return PixelLimits(lowest, highest)


def default_num_frames(harness: str, kind: str) -> int | None:
    """Frames of a video; None where the toolkit, or its adapter of this kind, leaves them open. Arguments as above."""
    of_kind = _table()[harness].get(kind)
    return None if of_kind is None else of_kind.all.num_frames


@cache
def _table() -> dict[str, dict[str, _OfKind]]:
    return read_yaml(TypeAdapter(dict[str, dict[str, _OfKind]]), models_dir() / "pixel_limits.yaml")
