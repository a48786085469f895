"""Frames of a video, and which are shown where a family has no way of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from PIL import Image


class Clip(NamedTuple):
    """Frames of a video."""

    frames: list[Image.Image]
    """Upright, in RGB, in order of time; at least one."""

    places: list[int]
    """[frames]: the number of each in the video, from 0."""

    total: int
    """Frames of the video."""

    fps: float | None
    """Of the video; None where nothing states it."""


def frame_indices(total: int, num_frames: int, *, first: int = 0, last: int | None = None) -> list[int]:
    """Frames in the middle of `num_frames` equal segments, as InternVL's released code picks them.

    A stretch of at most `num_frames` frames gives each frame once. (The released code then repeats some frames and
    leaves others out, which costs tokens and shows less.)

    Args:
        total: frames in the video.
        num_frames: how many to take.
        first, last: the stretch to take them from, both included; `last` None is the end.

    Returns:
        Ascending indices, at most `num_frames`.
    """
    last = total - 1 if last is None else min(last, total - 1)
    first = min(max(first, 0), last)
    if last - first < num_frames:
        return list(range(first, last + 1))
    segment = (last - first) / num_frames
    return [int(first + segment / 2 + np.round(segment * index)) for index in range(num_frames)]
