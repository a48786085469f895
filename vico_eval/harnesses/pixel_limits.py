"""Limits in each toolkit's own Qwen-VL adapter: pixels of an image, frames of a video (`models/pixel_limits.yaml`).

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
    """The range of pixels that an image is resized to; None uses the checkpoint's."""

    min_pixels: int | None
    max_pixels: int | None


class _Limits(Closed):
    """Limits and their place in the toolkit's code."""

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
    """The limits of a kind of checkpoint."""

    all: _Limits
    data_sets: dict[str, _Limits] = Field(default_factory=dict)
    """By the toolkit's names."""


def pixel_limits(
    harness: str, kind: str, task: str, *, min_pixels: int | None = None, max_pixels: int | None = None
) -> PixelLimits:
    """Return the pixel limits of a benchmark's images.

    Args:
        harness: `vico_eval.runs.schema.LMMS_EVAL` or `VLMEVALKIT`.
        kind: the kind of checkpoint, as in the names of our lmms-eval models.
        task: its name in the toolkit.
        min_pixels, max_pixels: the user's limits for every benchmark. If only one is given, it wins over the toolkit's
            other one.

    Returns:
        None for both if the toolkit doesn't limit pixels, as for InternVL, which has tiles.
    """
    of_kind = _table()[harness].get(kind)
    if of_kind is None:
        return PixelLimits(min_pixels, max_pixels)
    own = of_kind.data_sets.get(task, of_kind.all)
    lowest = min(own.min_pixels, max_pixels or own.min_pixels) if min_pixels is None else min_pixels
    highest = max(own.max_pixels, lowest) if max_pixels is None else max_pixels
    return PixelLimits(lowest, highest)


def default_num_frames(harness: str, kind: str) -> int | None:
    """Return the number of frames of a video; None if the toolkit's adapter of this kind doesn't set it. See
    `pixel_limits`."""
    of_kind = _table()[harness].get(kind)
    return None if of_kind is None else of_kind.all.num_frames


@cache
def _table() -> dict[str, dict[str, _OfKind]]:
    return read_yaml(TypeAdapter(dict[str, dict[str, _OfKind]]), models_dir() / "pixel_limits.yaml")
