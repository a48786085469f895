"""Frames of a video, and the default choice of frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from PIL import Image


class Clip(NamedTuple):
    """Frames of a video."""

    frames: list[Image.Image]
    """One or more upright RGB images in order of time."""

    places: list[int]
    """[frames]: number of each frame in the video, from 0."""

    total: int
    """Number of frames of the video."""

    fps: float | None
    """Frame rate of the video; None if unknown."""


def frame_indices(total: int, num_frames: int, *, first: int = 0, last: int | None = None) -> list[int]:
    """Return the frames in the middle of `num_frames` equal segments, as in InternVL's released code.

    An interval of at most `num_frames` frames returns each frame once. (The released code then repeats some frames and
    skips others, which costs tokens and shows less.)

    Args:
        total: number of frames of the video.
        num_frames: number of frames to choose.
        first, last: the interval, inclusive; `last` None is the end.

    Returns:
        Ascending indices, at most `num_frames`.
    """
    last = total - 1 if last is None else min(last, total - 1)
    first = min(max(first, 0), last)
    if last - first < num_frames:
        return list(range(first, last + 1))
    segment = (last - first) / num_frames
    return [int(first + segment / 2 + np.round(segment * index)) for index in range(num_frames)]
