"""Previews: small copies of the documents' images, for inspecting answers later.

An image is identified by values in its request's account: the digest of the request's tiles and the image's number.
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
"""Longest side of a preview; smaller images keep their size."""

QUALITY = 85
"""JPEG quality."""

FRAMES = 8
"""Number of frames that are kept of a video."""


class Previews:
    """A folder of previews, `<media[:2]>/<media>-<number>.jpg`, which threads, processes and runs may share."""

    def __init__(self, folder: Path) -> None:
        """Create the folder.

        Raises:
            OutputError: it can't be created.
        """
        self.folder = folder
        self._has_warned = False
        self._warning = threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"the folder of previews {folder} can't be created: {error}. Pass previews= another folder, or false."
            ) from error

    def keep(self, media: str, pictures: Mapping[int, Image.Image]) -> None:
        """Write the previews of a request's images that don't exist yet.

        A preview that can't be written, for example on a full disk, is no error. The first failure is logged and the
        run continues, since answers matter more than previews.

        Args:
            media: the digest of the request's tiles.
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
                    f"{path} can't be written: {error}. The run continues without pictures that can't be written, "
                    "without further warning."
                )
            self._has_warned = True


def check_previews(asked: object) -> None:
    """Raise ConfigError unless `asked` is a valid value of the model argument `previews`."""
    if not isinstance(asked, bool | str | Path) or asked in ("", "None"):
        raise ConfigError(f"previews is {asked!r}; expected true, false or a folder.")


def open_previews(asked: bool | str | Path, default: Path) -> Previews | None:
    """Open the folder for the model argument `previews`: true is the default folder, false is none, a string is a
    folder.

    Raises:
        ConfigError: the value is invalid.
        OutputError: the folder can't be created.
    """
    check_previews(asked)
    if asked is False:
        return None
    return Previews(default if asked is True else Path(asked))


def previewed_frames(num_frames: int) -> list[int]:
    """Return the numbers of the frames that are kept of a video: at most `FRAMES`, evenly spaced, ascending."""
    return frame_indices(num_frames, FRAMES)


def small_copy(picture: Image.Image) -> Image.Image:
    """Return an RGB image with a longest side of at most `LONGEST_PX`, without metadata."""
    longest = max(picture.size)
    if longest > LONGEST_PX:
        width, height = (max(1, round(side * LONGEST_PX / longest)) for side in picture.size)
        # Cheaper than bicubic over all pixels: Pillow first averages blocks, without a visible difference.
        copy = picture.resize((width, height), Image.Resampling.HAMMING, reducing_gap=2.0)
    else:
        copy = picture.copy()
    copy.info.clear()  # JPEG would copy a comment, and fail on a long one
    return copy


def _write(copy: Image.Image, path: Path) -> None:
    """Write a file atomically, also if others write it at the same time."""
    path.parent.mkdir(exist_ok=True)
    part = path.with_name(f".{path.stem}.{uuid4().hex}.part")
    # Small images keep colours at full resolution, which thin lines need.
    subsampling = "4:4:4" if max(copy.size) < LONGEST_PX else "4:2:0"
    try:
        copy.save(part, format="JPEG", quality=QUALITY, subsampling=subsampling)
        part.replace(path)
    except OSError:
        with suppress(OSError):
            part.unlink()
        raise
