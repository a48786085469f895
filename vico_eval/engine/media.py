"""Images and video frames from files, as RGB; what can't be read is an error that names it."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit
from urllib.request import url2pathname

import av
import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from vico_eval.errors import MediaError

# Share of a video's stated length that may be missing at its end, where that is more than two frames.
_MISSING_SHARE = 0.02

_PILLOW_SETTING = threading.Lock()


def load_image(source: Image.Image | str | Path | bytes) -> Image.Image:
    """The image in RGB, decoded; alpha is dropped and no EXIF rotation applied, as in InternVL's preprocessing.

    Args:
        source: an open image, a path, a `file:` address, or the bytes of an image file.

    Raises:
        MediaError: missing, not an image, cut off, without pixels, or larger than Pillow's safety limit.
    """
    name = _name(source)
    with _as_media_error(f"The image {name}"):
        if isinstance(source, Image.Image):
            _check_size(source, name)
            source.load()
            return source if source.mode == "RGB" else source.convert("RGB")
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else _path(source)) as image:
            _check_size(image, name)
            with whole_images_only():
                return image.convert("RGB")  # decodes: a cut-off file opens and fails only here


@contextmanager
def whole_images_only() -> Iterator[None]:
    """Has Pillow refuse cut-off images, in the whole process; one thread at a time.

    lmms-eval has it fill them up with grey, and an answer about grey is no answer.
    """
    with _PILLOW_SETTING:
        before = ImageFile.LOAD_TRUNCATED_IMAGES
        ImageFile.LOAD_TRUNCATED_IMAGES = False
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = before


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


def read_frames(
    source: str | Path | bytes,
    num_frames: int,
    *,
    start_s: float | None = None,
    end_s: float | None = None,
) -> list[Image.Image]:
    """Frames of a video, spaced evenly; see `frame_indices`. Decodes once, in order, and holds only what it returns.

    Args:
        source: path, `file:` address or bytes of a video file.
        num_frames: how many frames to take at most.
        start_s, end_s: the stretch to take them from, in seconds; None is the beginning and the end.

    Returns:
        RGB images in order of time, at least one.

    Raises:
        MediaError: missing, not a video, without frames, or cut off.
    """
    name = _name(source)
    with (
        _as_media_error(f"The video {name}"),
        av.open(io.BytesIO(source) if isinstance(source, bytes) else str(_path(source)), mode="r") as container,
    ):
        if not container.streams.video:
            raise MediaError(f"The file {name} has no video stream.")
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        total = stream.frames or _count_packets(container, stream)
        if total < 1:
            raise MediaError(f"The video {name} has no frames.")
        fps = float(stream.average_rate or 0)
        if fps <= 0 and (start_s is not None or end_s is not None):
            raise MediaError(f"The video {name} states no frame rate, so a stretch in seconds can't be found in it.")
        first = 0 if start_s is None else round(start_s * fps)
        last = None if end_s is None else round(end_s * fps)
        wanted = frame_indices(total, num_frames, first=first, last=last)
        decoded = _decode(container, stream, wanted)
        if len(decoded.frames) < len(wanted):
            if decoded.num_decoded == 0 or _is_cut_off(stream, decoded, total):
                raise MediaError(
                    f"The video {name} is cut off: {decoded.num_decoded} of {total} frames can be decoded."
                )
            # A clip cut without encoding it anew counts frames that its edit list hides: take those there are.
            container.seek(0)
            wanted = frame_indices(decoded.num_decoded, num_frames, first=first, last=last)
            decoded = _decode(container, stream, wanted)
    return decoded.frames


class _Decoded(NamedTuple):
    frames: list[Image.Image]
    num_decoded: int
    """Frames that were decoded, wanted or not."""
    end_s: float
    """When the last of them starts."""


def _decode(container: av.container.InputContainer, stream: av.VideoStream, wanted: list[int]) -> _Decoded:
    """The wanted frames (ascending indices), as far as there are any."""
    remaining = set(wanted)
    frames, num_decoded, end_s = [], 0, 0.0
    for index, frame in enumerate(container.decode(stream)):
        num_decoded, end_s = index + 1, frame.time or 0.0
        if index in remaining:
            frames.append(Image.fromarray(frame.to_ndarray(format="rgb24")))
            if index == wanted[-1]:
                break
    return _Decoded(frames, num_decoded, end_s)


def _is_cut_off(stream: av.VideoStream, decoded: _Decoded, total: int) -> bool:
    """Whether the picture ends long before the stream says: in time, or in frames where no duration is stated."""
    if not stream.duration or not stream.time_base:
        return total - decoded.num_decoded > max(2, _MISSING_SHARE * total)
    duration_s = float(stream.duration * stream.time_base)
    start_s = float((stream.start_time or 0) * stream.time_base)
    frame_s = float(1 / stream.average_rate) if stream.average_rate else 0.0
    missing_s = start_s + duration_s - (decoded.end_s + frame_s)
    return missing_s > max(2 * frame_s, _MISSING_SHARE * duration_s)


def _count_packets(container: av.container.InputContainer, stream: av.VideoStream) -> int:
    # Containers such as Matroska state no count; reading packets without decoding them is cheap.
    count = sum(1 for packet in container.demux(stream) if packet.size)
    container.seek(0)
    return count


@contextmanager
def _as_media_error(what: str) -> Iterator[None]:
    """Turns what PIL, FFmpeg and the file system raise about a file into a MediaError that names it."""
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
        raise MediaError(f"{what} is not in a format that Pillow can read.") from error
    # SyntaxError is how Pillow's PNG reader reports broken chunks.
    except (OSError, ValueError, SyntaxError, av.FFmpegError) as error:
        raise MediaError(f"{what} can't be read: {error}.") from error


def _check_size(image: Image.Image, name: str) -> None:
    if 0 in image.size:
        raise MediaError(f"The image {name} is {image.width} x {image.height} px; expected at least 1 x 1.")


def _path(source: str | Path) -> Path:
    if isinstance(source, Path):
        return source
    address = urlsplit(source)
    if address.scheme == "file":
        return Path(url2pathname(address.path))
    if "://" in source:
        raise MediaError(f"{source[:200]} is an address; expected a file. Download it first, nothing is fetched here.")
    return Path(source)


def _name(source: Image.Image | str | Path | bytes) -> str:
    if isinstance(source, bytes):
        return f"of {len(source)} bytes"
    if isinstance(source, Image.Image):
        filename = getattr(source, "filename", "")
        return str(filename) if filename else f"in memory ({source.mode}, {source.width} x {source.height} px)"
    return str(source)[:200]
