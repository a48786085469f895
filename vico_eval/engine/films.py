"""Videos, decoded and tiled once for consecutive questions about them.

Video-MME asks three questions per video, and decoding takes longer than most models take to answer.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from vico_eval.engine.frame_folders import is_folder, read_folder_clip
from vico_eval.engine.media import read_clip
from vico_eval.engine.previews import previewed_frames
from vico_eval.engine.requests import VideoInput

if TYPE_CHECKING:
    from PIL import Image

    from vico_eval.families.family import Picture, Prompting, Stand

KEPT = 3
"""Number of cached videos: one per reading thread, and the previous one. 64 frames take 40 MB, and more for whole
frames."""


@dataclass(frozen=True, eq=False)
class Film:
    """The frames of a video that a model sees."""

    pictures: list[Picture]
    """Of the frames, in order."""

    stand: Stand
    """The video's text in a message."""

    previewed: dict[int, Image.Image]
    """The frames to make previews of, by number; empty if none are wanted."""


class Films:
    """A reader of videos that caches the last ones. Thread-safe."""

    def __init__(self, prompting: Prompting, rate: float | None = None) -> None:
        """
        Args:
            prompting: chooses frames and divides them into tiles.
            rate: frames per second if no number of frames is requested; None uses the checkpoint's choice.
        """
        self._prompting = prompting
        self._rate = rate
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, Future[Film]] = OrderedDict()

    def read(self, video: VideoInput, num_frames: int | None, *, previewed: bool = False) -> Film:
        """Read the selected frames of a video, which may also be a folder of frames.

        Args:
            video: the video.
            num_frames: number of frames; None uses the checkpoint's choice.
            previewed: also keep some whole frames, for previews.

        Raises:
            MediaError: it can't be read.
        """
        key = _key(video, num_frames, previewed)
        if key is None:
            return self._read(video, num_frames, previewed)
        with self._lock:
            film = self._kept.get(key)
            is_ours = film is None
            if film is None:
                film = self._kept[key] = Future()
            self._kept.move_to_end(key)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        if is_ours:
            try:
                film.set_result(self._read(video, num_frames, previewed))
            except BaseException as error:
                # Waiting threads get the error; the next request tries again.
                film.set_exception(error)
                with self._lock:
                    self._kept.pop(key, None)
                raise
        return film.result()

    def _read(self, video: VideoInput, num_frames: int | None, previewed: bool) -> Film:
        read = read_folder_clip if is_folder(video.source) else read_clip
        choose = partial(self._prompting.choose_frames, num_frames=num_frames, rate=self._rate)
        clip = read(video.source, choose, start_s=video.start_s, end_s=video.end_s)
        strip = self._prompting.show(clip)
        # An image may combine several frames; its preview shows the first.
        step = max(1, round(len(clip.frames) / len(strip.pictures)))
        shown = previewed_frames(len(strip.pictures)) if previewed else []
        return Film(strip.pictures, strip.stand, {number: clip.frames[number * step] for number in shown})


def _key(video: VideoInput, num_frames: int | None, previewed: bool) -> Hashable | None:
    """Return a key of a video's frames for the cache; None if it can only be known by reading the video."""
    if isinstance(video.source, bytes) or is_folder(video.source):
        return None
    try:
        state = Path(video.source).stat()
    except (OSError, ValueError):  # a URL, or missing
        return None
    # The second time (ctime) changes with every write, even if the first (mtime) is set back.
    changed = state.st_size, state.st_mtime_ns, state.st_ctime_ns
    return str(video.source), changed, num_frames, video.start_s, video.end_s, previewed
