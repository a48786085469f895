"""A local video file read with FFmpeg: its video stream, the times of its frames, and the frames."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import av
from PIL import Image

from vico_eval.engine.frames import upright_rgb
from vico_eval.engine.video_seek import seek_frames
from vico_eval.errors import MediaError

# FFmpeg's names. Formats that refer to other files or URLs are excluded: playlists, file lists, stream descriptions.
_FORMATS = (
    *("mov", "mp4", "matroska", "webm", "avi", "mpegts", "mpeg", "flv", "asf", "ogg", "gif", "apng", "mxf", "nut"),
    *("ivf", "dv", "rm", "wtv", "obu", "h264", "hevc", "m4v", "mpegvideo", "yuv4mpegpipe"),
    *("mp3", "flac", "wav", "aac"),  # so that audio files get the right error
)
_LOCAL_ONLY = {"protocol_whitelist": "file", "format_whitelist": ",".join(_FORMATS)}

# Share of a video's stated length that may be missing at its end, if more than two frames.
_MISSING_SHARE = 0.02


class Decoded(NamedTuple):
    """Frames from a decoder."""

    frames: list[Image.Image]
    """The requested frames, upright and in RGB."""

    times_s: list[float]
    """Start of each frame: of the requested frames if they were sought, otherwise of all decoded frames."""


class VideoFacts(NamedTuple):
    """A file's metadata of its video, read without decoding."""

    total: int
    """Frames."""

    fps: float
    """Average rate; 0 if unknown."""

    is_constant: bool
    """Whether each frame begins within half a frame of its time at the average rate; also true if no times are
    known."""

    start_s: float
    """Start of the stream."""

    stated_s: float | None
    """Stated length of the stream."""

    end_s: float
    """End of the last frame; 0 if no times are known."""

    def is_cut_off(self, decoded: Decoded) -> bool:
        """Whether the frames end long before the stream does: in time, or in number if it states no length."""
        if not self.stated_s:
            return self.total - len(decoded.times_s) > max(2, _MISSING_SHARE * self.total)
        frame_s = 1 / self.fps if self.fps else 0.0
        last_s = decoded.times_s[-1] if decoded.times_s else 0.0
        missing_s = self.start_s + self.stated_s - (last_s + frame_s)
        return missing_s > max(2 * frame_s, _MISSING_SHARE * self.stated_s)


def look(source: Path | bytes, name: str, *, with_times: bool) -> VideoFacts:
    """Return a video's metadata; values that the file doesn't state are only determined if needed.

    Args:
        source: a file or its bytes.
        name: its name in errors.
        with_times: determine the time of each frame, for which the whole file is read without decoding.

    Raises:
        MediaError: it isn't a video file, or has no video stream.
    """
    with _opened(source, name) as (container, stream):
        total, fps = stream.frames, float(stream.average_rate or 0)
        start_s = float((stream.start_time or 0) * (stream.time_base or 0))
        stated_s = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else None
        begins: list[float] = []
        is_constant, end_s = True, 0.0
        if with_times or total < 1:
            count = 0
            for packet in container.demux(stream):
                if packet.size:
                    count += 1
                    moment = packet.dts if packet.pts is None else packet.pts
                    if moment is not None:
                        begins.append(float(moment * packet.time_base))
                        end_s = max(end_s, float((moment + (packet.duration or 0)) * packet.time_base))
            total = total or count  # containers such as Matroska have none
            if len(begins) == count:
                begins.sort()
                is_constant = bool(fps) and all(
                    abs((begin - begins[0]) * fps - place) < 0.5 for place, begin in enumerate(begins)
                )
    return VideoFacts(total, fps, is_constant, start_s, stated_s, end_s)


def decode(source: Path | bytes, name: str, wanted: Collection[int]) -> Decoded:
    """Decode the requested frames, given by their indices in order of time, as far as they exist.

    Seeks where that saves decoding. Otherwise decoding starts at the beginning and ends with the last requested frame,
    or with the video if none is requested.
    """
    with _opened(source, name) as (container, stream):
        sought = seek_frames(container, stream, wanted)
        if sought is not None:
            return Decoded([upright_rgb(frame) for frame in sought], [frame.time or 0.0 for frame in sought])
    remaining = set(wanted)
    last = max(remaining, default=None)
    frames: list[Image.Image] = []
    times_s: list[float] = []
    with _opened(source, name) as (container, stream):
        for place, frame in enumerate(container.decode(stream)):
            times_s.append(frame.time or 0.0)
            if place in remaining:
                frames.append(upright_rgb(frame))
                if place == last:
                    break
    return Decoded(frames, times_s)


@contextmanager
def _opened(source: Path | bytes, name: str) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    # Without this prefix, FFmpeg interprets `http:`, `concat:`, `subfile:` etc. in a name as a protocol.
    file = io.BytesIO(source) if isinstance(source, bytes) else f"file:{source}"
    try:
        container = av.open(file, mode="r", container_options=_LOCAL_ONLY)
    except FileNotFoundError:
        raise
    except av.FFmpegError as error:
        raise MediaError(
            f"The video {name} can't be read: {error}. Expected a video in one local file (mp4, mkv, webm, avi, ...); "
            "playlists and URLs are not followed."
        ) from error
    with container:
        stream = _video_stream(container)
        if stream is None:
            raise MediaError(f"The file {name} has no video stream.")
        stream.thread_type = "AUTO"
        yield container, stream


def _video_stream(container: av.container.InputContainer) -> av.VideoStream | None:
    """Return the stream that FFmpeg would play, ignoring cover pictures; None if there is no other."""
    videos = [stream for stream in container.streams.video if not _is_cover(stream)]
    best = container.streams.best("video")
    return next((stream for stream in videos if stream is best), videos[0] if videos else None)


def _is_cover(stream: av.VideoStream) -> bool:
    disposition = getattr(stream, "disposition", None)
    if disposition is None:  # PyAV 13: an image has no rate
        return not stream.average_rate
    return bool(disposition & type(disposition).attached_pic)
