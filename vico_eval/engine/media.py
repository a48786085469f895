"""Reading images and video frames from local files, upright and in RGB. Errors name the file."""

from __future__ import annotations

import io
import math
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit
from urllib.request import url2pathname

import av
import numpy as np
from PIL import EpsImagePlugin, ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError

from vico_eval.engine.video_file import VideoFacts, decode, look
from vico_eval.errors import MediaError
from vico_eval.families.frame_choice import Clip, frame_indices

RASTER_FORMATS = (
    *("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "MPO", "PPM", "JPEG2000", "AVIF", "HEIF"),
    *("DIB", "ICO", "JXL", "PCX", "PSD", "QOI", "SGI", "TGA"),
)
"""Pillow's names of the supported formats, as far as Pillow or a plug-in has them. Other formats are rejected before
decoding, because Pillow starts Ghostscript for PostScript."""

_UPRIGHT = 1
"""In EXIF."""

# Times in Matroska are rounded to milliseconds.
_ROUNDING_S = 0.001

_PILLOW_SETTING = threading.RLock()


def load_image(source: Image.Image | str | Path | bytes) -> Image.Image:
    """Decode an image to RGB, rotated upright by its EXIF orientation and without alpha.

    An image that was rotated before, for example by `datasets`, has no orientation any more and isn't rotated again.
    InternVL's own preprocessing ignores the orientation.

    Args:
        source: an open image, a path, a `file:` URL, or the bytes of an image file.

    Raises:
        MediaError: the file is missing, is no image of `RASTER_FORMATS`, is truncated, has no pixels, or exceeds
            Pillow's safety limit.
    """
    name = _name(source)
    with _as_media_error(f"The image {name}"):
        if isinstance(source, Image.Image):
            if source.format not in (None, *RASTER_FORMATS):
                raise MediaError(f"The image {name} is in the format {source.format}. {_expected_image()}")
            return _upright_rgb(source, name)
        file = io.BytesIO(source) if isinstance(source, bytes) else _file(source)
        with Image.open(file, formats=_known_formats()) as image:
            upright = _upright_rgb(image, name)
            return upright.copy() if upright is image else upright  # its file is closed here


def _upright_rgb(image: Image.Image, name: str) -> Image.Image:
    _check_size(image, name)
    with whole_images_only():
        image.load()  # a truncated file can be opened and only fails here
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    if (orientation := _orientation(image)) == _UPRIGHT:
        return rgb
    # Its other metadata may be broken, and rotating would rewrite it.
    note = Image.Exif()
    note[ExifTags.Base.Orientation] = orientation
    lying = rgb.copy()
    lying.info = {"exif": note.tobytes()}
    return ImageOps.exif_transpose(lying)


def _orientation(image: Image.Image) -> int:
    """Return EXIF's orientation of a decoded image, 1 to 8; unreadable metadata is ignored."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except (SyntaxError, ValueError, TypeError, LookupError, OSError, EOFError, struct.error):
        return _UPRIGHT
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else _UPRIGHT


def _known_formats() -> list[str]:
    """Return the formats of `RASTER_FORMATS` that this Pillow supports."""
    Image.init()
    return [name for name in RASTER_FORMATS if name in Image.OPEN]


def _expected_image() -> str:
    return f"Expected a raster image: {', '.join(RASTER_FORMATS)}. Save it as one of them."


@contextmanager
def whole_images_only() -> Iterator[None]:
    """Make Pillow reject truncated images, in the whole process. For one thread at a time.

    lmms-eval lets Pillow fill them with grey, and an answer about a grey area would be meaningless.

    Raises:
        MediaError: a PostScript file was opened as an image after `start_no_ghostscript`.
    """
    with _PILLOW_SETTING:
        before = ImageFile.LOAD_TRUNCATED_IMAGES
        ImageFile.LOAD_TRUNCATED_IMAGES = False
        try:
            yield
        except OSError as error:
            if EpsImagePlugin.gs_binary is False and "Ghostscript" in str(error):
                raise MediaError(f"A picture is a PostScript file. {_expected_image()}") from error
            raise
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = before


def start_no_ghostscript() -> None:
    """Make Pillow treat Ghostscript as missing, in the whole process.

    For processes of the toolkits, where `datasets` and tasks open images before their format can be checked.
    """
    EpsImagePlugin.gs_binary = False


class PickFrames(Protocol):
    """Chooses frames of a video, like `frame_indices`."""

    def __call__(self, total: int, num_frames: int, *, first: int = 0, last: int | None = None) -> list[int]: ...


def frames_between(times: Sequence[float], start_s: float, end_s: float) -> tuple[int, int]:
    """Return the first and last frame that begin in an interval; if none does, the frame that is shown during it.

    Args:
        times: [frames], start of each frame in seconds, ascending.
        start_s, end_s: the interval, inclusive; it doesn't begin before the first frame.
    """
    first = int(np.searchsorted(times, start_s, side="left"))
    last = int(np.searchsorted(times, end_s, side="right")) - 1
    return min(first, last), last


def read_frames(
    source: str | Path | bytes,
    num_frames: int,
    *,
    start_s: float | None = None,
    end_s: float | None = None,
    pick: PickFrames = frame_indices,
) -> list[Image.Image]:
    """Read frames of a video, evenly spaced unless `pick` selects others. Seeks where that saves decoding, and keeps
    only the returned frames in memory.

    The video is the file's default stream, never a cover picture. Seconds count from its first frame. At a constant
    frame rate they are rounded to frames, as in InternVL's code. If the rate varies, an interval has the frames that
    begin in it (`frames_between`), for which the video is decoded twice.

    Args:
        source: path, `file:` URL or bytes of a video file.
        num_frames: maximum number of frames.
        start_s, end_s: the interval to take them from, in seconds; None means the beginning or the end, and a later
            moment than the end means the end.
        pick: selects the frames of an interval.

    Returns:
        One or more upright RGB images in order of time.

    Raises:
        MediaError: the file is missing, is no video, has no frames, is truncated, or ends before the interval begins.
    """

    def choose(total: int, fps: float | None, **stretch: int) -> list[int]:
        return pick(total, num_frames, **stretch)

    return read_clip(source, choose, start_s=start_s, end_s=end_s).frames


def read_clip(
    source: str | Path | bytes,
    choose: Callable[..., list[int]],
    *,
    start_s: float | None = None,
    end_s: float | None = None,
) -> Clip:
    """Read frames with their numbers; see `read_frames`.

    Args:
        source: path, `file:` URL or bytes of a video file.
        choose: called with the number of frames, their rate, and `first` and `last` of an interval; returns frame
            numbers, ascending.
        start_s, end_s: see `read_frames`.
    """
    name = _name(source)
    stretch = None
    if start_s is not None or end_s is not None:
        stretch = (start_s or 0.0, math.inf if end_s is None else end_s)
    with _as_media_error(f"The video {name}"):
        file = source if isinstance(source, bytes) else _file(source)
        video = look(file, name, with_times=stretch is not None)
        total, times = video.total, None
        if total < 1:
            raise MediaError(f"The video {name} has no frames.")
        if stretch is not None and not video.is_constant:
            seen = decode(file, name, [])
            times = sorted(seen.times_s)
            if not times or (stretch[1] > times[-1] and video.is_cut_off(seen)):
                raise _cut_off(name, len(times), total)
            total = len(times)
        wanted = _choose(name, video, total, times, choose, stretch)
        decoded = decode(file, name, wanted)
        if len(decoded.frames) < len(wanted):
            found = len(decoded.times_s)
            if not found or video.is_cut_off(decoded):
                raise _cut_off(name, found, total)
            # A clip cut without re-encoding counts frames that its edit list hides, so take the visible ones.
            total, wanted = found, _choose(name, video, found, times, choose, stretch)
            decoded = decode(file, name, wanted)
    return Clip(decoded.frames, wanted, total, video.fps or None)


def _choose(
    name: str,
    video: VideoFacts,
    total: int,
    times: Sequence[float] | None,
    choose: Callable[..., list[int]],
    stretch: tuple[float, float] | None,
) -> list[int]:
    """Choose frames out of `total`; `times` are their starts, or None at a constant rate."""
    fps = video.fps or None
    if stretch is None:
        return choose(total, fps)
    if times is None and not video.fps:
        raise MediaError(f"The video {name} has no frame rate, so it can't be cut to an interval in seconds.")
    length_s = total / video.fps if times is None else video.end_s - times[0]
    start_s, end_s = stretch[0], min(stretch[1], length_s)
    if start_s >= length_s:
        raise MediaError(
            f"The video {name} is {length_s:.2f} s long and the requested interval begins at {start_s:g} s; "
            "expected a beginning before the end. Check the interval, and whether it is in seconds."
        )
    if times is None:
        first, last = round(start_s * video.fps), round(end_s * video.fps)
    else:
        first, last = frames_between([time - times[0] for time in times], start_s - _ROUNDING_S, end_s + _ROUNDING_S)
    return choose(total, fps, first=first, last=last)


def _cut_off(name: str, found: int, total: int) -> MediaError:
    return MediaError(f"The video {name} is cut off: {found} of {total} frames can be decoded.")


@contextmanager
def _as_media_error(what: str) -> Iterator[None]:
    """Convert errors of PIL, FFmpeg and the file system to a MediaError that names the file."""
    try:
        yield
    except FileNotFoundError as error:
        raise MediaError(f"{what} does not exist.") from error
    except Image.DecompressionBombError as error:
        limit = Image.MAX_IMAGE_PIXELS or 0
        raise MediaError(
            f"{what} has more than {2 * limit} pixels, Pillow's limit against decompression bombs. "
            "Shrink it, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust the file."
        ) from error
    except UnidentifiedImageError as error:
        raise MediaError(f"{what} is not in a supported format. {_expected_image()}") from error
    # SyntaxError is how Pillow's PNG reader reports broken chunks.
    except (OSError, ValueError, SyntaxError, av.FFmpegError) as error:
        raise MediaError(f"{what} can't be read: {error}.") from error


def _check_size(image: Image.Image, name: str) -> None:
    if 0 in image.size:
        raise MediaError(f"The image {name} is {image.width} x {image.height} px; expected at least 1 x 1.")


def _file(source: str | Path) -> Path:
    """Return the file; folders, pipes and devices are rejected."""
    path = _path(source)
    if path.exists() and not path.is_file():
        raise OSError("it is not a file")
    return path


def _path(source: str | Path) -> Path:
    if isinstance(source, Path):
        return source
    address = urlsplit(source)
    if address.scheme == "file":
        return Path(url2pathname(address.path))
    if "://" in source:
        raise MediaError(f"{source[:200]} is a URL; expected a file. Download it first: vico-eval doesn't fetch media.")
    return Path(source)


def _name(source: Image.Image | str | Path | bytes) -> str:
    if isinstance(source, bytes):
        return f"of {len(source)} bytes"
    if isinstance(source, Image.Image):
        filename = getattr(source, "filename", "")
        return str(filename) if filename else f"in memory ({source.mode}, {source.width} x {source.height} px)"
    return str(source)[:200]
