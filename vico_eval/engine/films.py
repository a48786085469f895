"""Films are decoded and cut once for all questions about them that follow each other.

Video-MME asks three questions about a film, and decoding one takes longer than most models take to answer.
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
"""Films: as many as the threads that read, and the one before. One of 64 frames takes 40 MB, and some frames whole."""


@dataclass(frozen=True, eq=False)
class Film:
    """What is shown of a film."""

    pictures: list[Picture]
    """Of its frames, in order."""

    stand: Stand
    """What stands for it in a message."""

    previewed: dict[int, Image.Image]
    """By number, the frames of which a small copy is to be made; none where nobody wants any."""


class Films:
    """Reads films; the last ones are kept. May be asked in several threads at once."""

    def __init__(self, prompting: Prompting, rate: float | None = None) -> None:
        """
        Args:
            prompting: how frames are chosen and cut.
            rate: frames a second that are shown where no number of them is asked for; None leaves it to the checkpoint.
        """
        self._prompting = prompting
        self._rate = rate
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, Future[Film]] = OrderedDict()

    def read(self, video: VideoInput, num_frames: int | None, *, previewed: bool = False) -> Film:
        """The frames of a film that are shown; a film may also be a folder of frames.

        Args:
            video: the film.
            num_frames: how many are shown; None leaves it to the checkpoint.
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

    def _read(self, video: VideoInput, num_frames: int | None, previewed: bool) -> Film:
        read = read_folder_clip if is_folder(video.source) else read_clip
        choose = partial(self._prompting.choose_frames, num_frames=num_frames, rate=self._rate)
        clip = read(video.source, choose, start_s=video.start_s, end_s=video.end_s)
        strip = self._prompting.show(clip)
        # A picture may be of several frames; its copy is of the first.
        step = max(1, round(len(clip.frames) / len(strip.pictures)))
        shown = previewed_frames(len(strip.pictures)) if previewed else []
        return Film(strip.pictures, strip.stand, {number: clip.frames[number * step] for number in shown})


def _key(video: VideoInput, num_frames: int | None, previewed: bool) -> Hashable | None:
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
