"""Videos as in InternVL's training: a random number of random frames, each with a label.

Source: `get_frame_indices`, `read_frames_decord`, `read_frames_folder` and `video_get_item` of the training code
released with InternVL 2.5, 3 and 3.5.
Differs: every frame of a segment may be drawn (in the released code: not its last one, and any frames of the video if a
segment has only one frame); a clip in seconds is located as at inference; frames start a new line even after text.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from PIL import Image

from vico_eval.engine.frame_folders import is_folder, read_frame_folder
from vico_eval.engine.media import read_frames
from vico_eval.engine.requests import ImageInput, Message, Part, Text, VideoInput


class Asked(NamedTuple):
    """A conversation in the form given to the model."""

    messages: tuple[Message, ...]

    frames_of: tuple[int, ...]
    """The number of frames of each video that is laid out in frames."""


def with_random_frames(messages: Sequence[Message], fewest: int, most: int, rng: np.random.Generator) -> Asked:
    """Replace each video by randomly drawn frames, one per line, each after its label `Frame-1: `.

    Args:
        messages: the conversation.
        fewest, most: the range of the number of frames, inclusive; every number is equally likely.
        rng: draws the number and the frames.

    Raises:
        MediaError: a video can't be read.
    """
    asked, frames_of = [], []
    for message in messages:
        parts: list[Part] = []
        for part in message.content:
            if isinstance(part, VideoInput):
                frames = _random_frames(part, int(rng.integers(fewest, most, endpoint=True)), rng)
                parts += _lines(frames, behind=parts)
                frames_of.append(len(frames))
            elif part != Text(""):
                parts.append(part)
        asked.append(Message(message.role, tuple(parts)))
    return Asked(tuple(asked), tuple(frames_of))


def random_indices(
    total: int, num_frames: int, *, rng: np.random.Generator, first: int = 0, last: int | None = None
) -> list[int]:
    """Draw a random frame from each of `num_frames` equal segments; take every frame once if there are no more.

    Args:
        total: number of frames in the video.
        num_frames: number of frames to take.
        rng: draws the frames.
        first, last: the range to take them from, inclusive; None for `last` means the end.

    Returns:
        Ascending indices, at most `num_frames`.
    """
    last = total - 1 if last is None else min(last, total - 1)
    first = min(max(first, 0), last)
    length = last - first + 1
    edges = first + np.linspace(0, length, min(num_frames, length) + 1).astype(np.int64)
    drawn: list[int] = rng.integers(edges[:-1], edges[1:]).tolist()
    return drawn


def _random_frames(video: VideoInput, num_frames: int, rng: np.random.Generator) -> list[Image.Image]:
    """Read random frames of a video; for a file, not for a folder, the last frame is repeated if there are too few."""
    pick = partial(random_indices, rng=rng)
    if is_folder(video.source):
        return read_frame_folder(video.source, num_frames, start_s=video.start_s, end_s=video.end_s, pick=pick)
    frames = read_frames(video.source, num_frames, start_s=video.start_s, end_s=video.end_s, pick=pick)
    return frames + frames[-1:] * (num_frames - len(frames))


def _lines(frames: Sequence[Image.Image], *, behind: Sequence[Part]) -> list[Part]:
    """Lay out one line per frame, after a line break if the preceding part does not end its line."""
    lines: list[Part] = []
    if behind and not _ends_line(behind[-1]):
        lines.append(Text("\n"))
    for number, frame in enumerate(frames, start=1):
        lines += [Text(f"Frame-{number}: "), ImageInput(frame, is_inline=True, is_frame=True), Text("\n")]
    return lines


def _ends_line(part: Part) -> bool:
    if isinstance(part, Text):
        return part.text.endswith("\n")
    return isinstance(part, ImageInput) and not part.is_inline
