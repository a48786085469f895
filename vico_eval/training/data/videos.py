"""Videos as InternVL's training shows them: a random number of random frames, each with its label.

Source: `get_frame_indices`, `read_frames_decord`, `read_frames_folder` and `video_get_item` of the training code
released with InternVL 2.5, 3 and 3.5.
Differs: every frame of a segment may be drawn (there: not its last one, and any frames of the video where a segment has
one frame only); a stretch in seconds is found as at inference; frames begin a line also where words stand before them.
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
    """A conversation as it is put to the model."""

    messages: tuple[Message, ...]

    frames_of: tuple[int, ...]
    """Of each video that is laid out in frames, how many it shows."""


def with_random_frames(messages: Sequence[Message], fewest: int, most: int, rng: np.random.Generator) -> Asked:
    """The conversation with each video as frames that are drawn, a line each: `Frame-1: ` and the frame.

    Args:
        messages: of a conversation.
        fewest, most: frames of a video, both included; every number is equally likely.
        rng: draws how many and which.

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
    """A random frame of each of `num_frames` equal segments; every frame once where there are no more.

    Args:
        total: frames in the video.
        num_frames: how many to take.
        rng: draws them.
        first, last: the stretch to take them from, both included; `last` None is the end.

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
    """Frames of a video; the last one again and again where a file has fewer, but not where a folder has."""
    pick = partial(random_indices, rng=rng)
    if is_folder(video.source):
        return read_frame_folder(video.source, num_frames, start_s=video.start_s, end_s=video.end_s, pick=pick)
    frames = read_frames(video.source, num_frames, start_s=video.start_s, end_s=video.end_s, pick=pick)
    return frames + frames[-1:] * (num_frames - len(frames))


def _lines(frames: Sequence[Image.Image], *, behind: Sequence[Part]) -> list[Part]:
    """A line for each frame, the first one begun where what stands before has not ended its own."""
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
