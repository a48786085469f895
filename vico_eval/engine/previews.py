"""Small copies of the pictures that documents are about, for whoever looks at answers later.

A picture is known by what the account of its request says: the digest of the request's tiles and the picture's number.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from PIL import Image

from vico_eval.errors import ConfigError, OutputError
from vico_eval.families.frame_choice import frame_indices
from vico_eval.logs import logger

LONGEST_PX = 640
"""Longest side of a copy; a smaller picture keeps its size."""

QUALITY = 85
"""Of JPEG."""

FRAMES = 8
"""Frames that are kept of a video."""


class Previews:
    """A folder of copies, `<media[:2]>/<media>-<number>.jpg`; threads, processes and runs may share it."""

    def __init__(self, folder: Path) -> None:
        """Makes the folder.

        Raises:
            OutputError: it can't be made.
        """
        self.folder = folder
        self._has_warned = False
        self._warning = threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"the folder of pictures {folder} can't be made: {error}. Pass previews= another folder, or false."
            ) from error

    def keep(self, media: str, pictures: Mapping[int, Image.Image]) -> None:
        """Write those of a request's pictures that are not there yet.

        A copy that can't be written, as on a full disk, is no error: the first one is logged and the run goes on, since
        its answers are worth more than its pictures.

        Args:
            media: digest of the request's tiles.
            pictures: RGB images by their number in the request.
        """
        for number, picture in pictures.items():
            path = self.folder / media[:2] / f"{media}-{number}.jpg"
            try:
                if not path.exists():
                    _write(small_copy(picture), path)
            except OSError as error:
                self._warn(path, error)

    def _warn(self, path: Path, error: OSError) -> None:
        with self._warning:
            if not self._has_warned:
                logger.warning(
                    f"{path} can't be written: {error}. The run goes on; pictures that can't be written are left out, "
                    "without further warning."
                )
            self._has_warned = True


def check_previews(asked: object) -> None:
    """Raises ConfigError if `asked` is no value of the model argument `previews`."""
    if not isinstance(asked, bool | str | Path) or asked in ("", "None"):
        raise ConfigError(f"previews is {asked!r}; expected true, false or a folder.")


def open_previews(asked: bool | str | Path, default: Path) -> Previews | None:
    """What the model argument `previews` asks for: true is the default folder, false none at all, words a folder.

    Raises:
        ConfigError: another value.
        OutputError: the folder can't be made.
    """
    check_previews(asked)
    if asked is False:
        return None
    return Previews(default if asked is True else Path(asked))


def previewed_frames(num_frames: int) -> list[int]:
    """Numbers of the frames of a video that are kept: at most `FRAMES`, spaced evenly, ascending."""
    return frame_indices(num_frames, FRAMES)


def small_copy(picture: Image.Image) -> Image.Image:
    """An RGB picture whose longest side is at most `LONGEST_PX`, without the notes that its file held."""
    longest = max(picture.size)
    if longest > LONGEST_PX:
        width, height = (max(1, round(side * LONGEST_PX / longest)) for side in picture.size)
        # Cheaper than bicubic over all pixels: Pillow first averages whole ones, as far as nobody sees it.
        copy = picture.resize((width, height), Image.Resampling.HAMMING, reducing_gap=2.0)
    else:
        copy = picture.copy()
    copy.info.clear()  # JPEG would take over a comment, and fail on a long one
    return copy


def _write(copy: Image.Image, path: Path) -> None:
    """All of a file or nothing, whoever else writes it."""
    path.parent.mkdir(exist_ok=True)
    part = path.with_name(f".{path.stem}.{uuid4().hex}.part")
    # A picture that was small keeps its colours at full resolution, which its thin lines need.
    subsampling = "4:4:4" if max(copy.size) < LONGEST_PX else "4:2:0"
    try:
        copy.save(part, format="JPEG", quality=QUALITY, subsampling=subsampling)
        part.replace(path)
    except OSError:
        with suppress(OSError):
            part.unlink()
        raise
