"""Films are decoded and cut once for all questions about them that follow each other.

Video-MME asks three questions about a film, and decoding one takes longer than most models take to answer.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vico_eval.engine.frame_folders import is_folder, read_frame_folder
from vico_eval.engine.media import read_frames
from vico_eval.engine.previews import previewed_frames
from vico_eval.engine.requests import VideoInput

if TYPE_CHECKING:
    from PIL import Image

    from vico_eval.families.family import Picture

KEPT = 3
"""Films: as many as the threads that read, and the one before. One of 64 frames takes 40 MB, and some frames whole."""


@dataclass(frozen=True, eq=False)
class Film:
    """What is shown of a film."""

    pictures: list[Picture]
    """Of its frames, in order."""

    previewed: dict[int, Image.Image]
    """By number, the frames of which a small copy is to be made; none where nobody wants any."""


class Films:
    """Reads films; the last ones are kept. May be asked in several threads at once."""

    def __init__(self, cut_frame: Callable[[Image.Image], Picture]) -> None:
        self._cut_frame = cut_frame
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, Future[Film]] = OrderedDict()

    def read(self, video: VideoInput, num_frames: int, *, previewed: bool = False) -> Film:
        """The frames of a film that are shown; a film may also be a folder of frames.

        Args:
            video: the film.
            num_frames: how many are shown.
            previewed: whether some are wanted whole, for small copies.

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
                # Whoever waits for it gets the error; the next one who asks tries again.
                film.set_exception(error)
                with self._lock:
                    self._kept.pop(key, None)
                raise
        return film.result()

    def _read(self, video: VideoInput, num_frames: int, previewed: bool) -> Film:
        read = read_frame_folder if is_folder(video.source) else read_frames
        frames = read(video.source, num_frames, start_s=video.start_s, end_s=video.end_s)
        return Film(
            pictures=[self._cut_frame(frame) for frame in frames],
            previewed={number: frames[number] for number in previewed_frames(len(frames))} if previewed else {},
        )


def _key(video: VideoInput, num_frames: int, previewed: bool) -> Hashable | None:
    """By what a film's frames are known again; None where only reading it would tell."""
    if isinstance(video.source, bytes) or is_folder(video.source):
        return None
    try:
        state = Path(video.source).stat()
    except (OSError, ValueError):  # an address, or not there
        return None
    # The second time changes with every write, also where the first is set back.
    changed = state.st_size, state.st_mtime_ns, state.st_ctime_ns
    return str(video.source), changed, num_frames, video.start_s, video.end_s, previewed
