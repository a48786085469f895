"""Frames of videos as people see them: the right stream, upright, in its colours, at the moments that are asked for."""

import os
import shutil
import threading
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import av
import numpy as np
import pytest

from vico_eval.engine.ahead import prepare_ahead
from vico_eval.engine.frames import upright_rgb
from vico_eval.engine.media import frames_between, read_frames
from vico_eval.engine.preprocess import Preprocessor
from vico_eval.engine.requests import Message, Request, Text, VideoInput
from vico_eval.errors import DocumentError, MediaError
from vico_eval.families.internvl.prompting import InternVLPrompting, InternVLSettings
from vico_eval.tiny.tokenizer import build_tokenizer

MEDIA = Path(__file__).parent.parent / "golden" / "media"

PATCHES = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 200, 0)]

# FFmpeg's number of each matrix, and the weights of red and blue that its standard gives.
MATRICES = {
    "BT.709": (1, 0.2126, 0.0722),
    "untagged": (2, 0.299, 0.114),
    "FCC": (4, 0.30, 0.11),
    "BT.601 (PAL)": (5, 0.299, 0.114),
    "BT.601 (NTSC)": (6, 0.299, 0.114),
    "SMPTE 240M": (7, 0.212, 0.087),
    "BT.2020": (9, 0.2627, 0.0593),
}


def pixels(frame):
    return np.asarray(frame).astype(int)


def patches(frame):
    """[4, 3]: the colour in the middle of four patches side by side."""
    found = pixels(frame)
    return found[found.shape[0] // 2, found.shape[1] // 8 :: found.shape[1] // 4]


def write_planes(path, planes, pix_fmt, *, matrix=2, full_range=False, codec="ffv1"):
    """A lossless video of one frame from its planes, each [H, W]."""
    height, width = planes[0].shape
    frame = av.VideoFrame(width, height, pix_fmt)
    for plane, values in zip(frame.planes, planes, strict=True):
        rows = np.zeros((height, plane.line_size), dtype=np.uint8)
        raw = np.ascontiguousarray(values).view(np.uint8).reshape(height, -1)
        rows[:, : raw.shape[1]] = raw
        plane.update(rows.tobytes())
    frame.colorspace, frame.color_range, frame.pts = matrix, 2 if full_range else 1, 0
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, frame.color_range
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def ycbcr(name, *, full_range, bits):
    """Three planes of the four patches, by the formulas that all of the standards share."""
    _, red, blue = MATRICES[name]
    r, g, b = np.array(PATCHES).T / 255
    luma = red * r + (1 - red - blue) * g + blue * b
    chroma = (b - luma) / (2 * (1 - blue)), (r - luma) / (2 * (1 - red))
    step, top = 2 ** (bits - 8), 2**bits - 1
    if full_range:
        values = [luma * top, *(one * top + 128 * step for one in chroma)]
    else:
        values = [(16 + 219 * luma) * step, *((128 + 224 * one) * step for one in chroma)]
    kind = np.uint8 if bits == 8 else np.uint16
    return [np.repeat(np.tile(np.clip(one.round(), 0, top).astype(kind), (16, 1)), 16, axis=1) for one in values]


@pytest.fixture
def write_at(tmp_path):
    """Writes a video whose frame i, of grey 8 i, begins at the i-th of these seconds."""

    def write(name, seconds):
        with av.open(str(tmp_path / name), "w") as container:
            stream = container.add_stream("mpeg4", rate=10)
            stream.width = stream.height = 32
            stream.pix_fmt = "yuv420p"
            stream.codec_context.time_base = Fraction(1, 1000)
            for index, second in enumerate(seconds):
                grey = np.full((32, 32, 3), 8 * index, dtype=np.uint8)
                frame = av.VideoFrame.from_ndarray(grey, format="rgb24")
                frame.pts, frame.time_base = round(second * 1000), Fraction(1, 1000)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return tmp_path / name

    return write


def test_a_phone_s_video_is_upright():
    lying, upright = (pixels(read_frames(MEDIA / name, 1)[0]) for name in ("01_plain.mp4", "01_rot90.mp4"))
    assert (lying.shape, upright.shape) == ((96, 160, 3), (160, 96, 3))
    assert lying[48, 3, 0] > 200 > 50 > lying[48, 80, 0]  # the bar on the left
    assert upright[3, 48, 0] > 200 > 50 > upright[80, 48, 0]  # at the top
    np.testing.assert_array_equal(upright, np.rot90(lying, -1))


class _Frame:
    """A frame of PyAV's with a display matrix of our own, which PyAV can't write."""

    def __init__(self, stored, matrix):
        self._frame = av.VideoFrame.from_ndarray(stored, format="rgb24")
        self.format, self.to_ndarray = self._frame.format, self._frame.to_ndarray
        self.side_data = {} if matrix is None else {"DISPLAYMATRIX": np.array(matrix, dtype=np.int32).tobytes()}


ONE, FAR = 1 << 16, 96 << 16


@pytest.mark.parametrize(
    ("matrix", "shown"),
    [
        (None, lambda stored: stored),
        ([ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30], lambda stored: stored),
        ([0, ONE, 0, -ONE, 0, 0, FAR, 0, 1 << 30], lambda stored: np.rot90(stored, -1)),  # clockwise
        ([-ONE, 0, 0, 0, -ONE, 0, FAR, FAR, 1 << 30], lambda stored: np.rot90(stored, 2)),
        ([0, -ONE, 0, ONE, 0, 0, 0, FAR, 1 << 30], lambda stored: np.rot90(stored, 1)),
        ([-ONE, 0, 0, 0, ONE, 0, FAR, 0, 1 << 30], np.fliplr),
        ([ONE, 0, 0, 0, -ONE, 0, 0, FAR, 1 << 30], np.flipud),
        ([0, ONE, 0, ONE, 0, 0, 0, 0, 1 << 30], lambda stored: stored.swapaxes(0, 1)),
        ([0, -ONE, 0, -ONE, 0, 0, FAR, FAR, 1 << 30], lambda stored: np.rot90(stored, 2).swapaxes(0, 1)),
        ([0] * 9, lambda stored: stored),
    ],
)
def test_turned_and_mirrored_as_the_display_matrix_says(matrix, shown):
    stored = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(upright_rgb(_Frame(stored, matrix))), shown(stored))


@pytest.mark.parametrize(("angle", "turns"), [(0, 0), (90, 1), (-90, -1), (180, 2), (-180, 2)])
def test_data_that_pyav_has_no_name_for_hides_no_angle(angle, turns):
    class Unnamed:
        def get(self, name):
            raise ValueError("37 is not a valid Type")

    frame = _Frame(np.arange(72, dtype=np.uint8).reshape(4, 6, 3), None)
    frame.side_data, frame.rotation = Unnamed(), angle
    expected = np.rot90(np.arange(72, dtype=np.uint8).reshape(4, 6, 3), turns)
    np.testing.assert_array_equal(np.asarray(upright_rgb(frame)), expected)


@pytest.mark.parametrize("name", ["02_film_cover.mp4", "02_cover_first.mp4"])
def test_a_cover_picture_is_never_the_video(name):
    frames = read_frames(MEDIA / name, 64)
    assert len(frames) == 20
    assert np.abs(pixels(frames[7])[32, 32] - (200, 0, 0)).max() <= 3


def test_sound_with_a_cover_has_no_video():
    with pytest.raises(MediaError, match=r"02_sound\.m4a has no video stream"):
        read_frames(MEDIA / "02_sound.m4a", 4)


@pytest.mark.parametrize("name", ["21_untagged.mp4", "21_bt709.mp4"])
def test_colours_of_the_matrix_that_a_video_names(name):
    assert np.abs(patches(read_frames(MEDIA / name, 1)[0]) - PATCHES).max() <= 3


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize(("bits", "pix_fmt"), [(8, "yuv444p"), (10, "yuv444p10le")])
@pytest.mark.parametrize("name", MATRICES)
def test_colours_of_every_matrix_range_and_depth(tmp_path, name, bits, pix_fmt, full_range):
    planes = ycbcr(name, full_range=full_range, bits=bits)
    path = write_planes(tmp_path / "a.mkv", planes, pix_fmt, matrix=MATRICES[name][0], full_range=full_range)
    assert np.abs(patches(read_frames(path, 1)[0]) - PATCHES).max() <= 2  # a wrong matrix is 10 off, a range 14


def test_colours_that_were_never_coded_stay_as_they_are(tmp_path):
    red, green, blue = (np.repeat(np.tile(one.astype(np.uint8), (16, 1)), 16, axis=1) for one in np.array(PATCHES).T)
    path = write_planes(tmp_path / "a.avi", [green, blue, red], "gbrp", matrix=0, full_range=True, codec="utvideo")
    assert patches(read_frames(path, 1)[0]).tolist() == [list(patch) for patch in PATCHES]
    grey = np.tile(np.repeat(np.array([0, 80, 160, 255], np.uint8), 16), (16, 1))
    path = write_planes(tmp_path / "b.mkv", [grey], "gray", full_range=True)
    assert patches(read_frames(path, 1)[0])[:, 1].tolist() == [0, 80, 160, 255]


def test_a_stretch_that_begins_behind_the_end_is_an_error(shown):
    path = MEDIA / "04_cfr.mp4"
    for start_s in (3.0, 3.5, 100, float("inf")):
        with pytest.raises(MediaError, match=r"04_cfr\.mp4 is 3\.00 s long and the requested interval begins at"):
            read_frames(path, 4, start_s=start_s, end_s=start_s + 1)
    assert shown(read_frames(path, 4, start_s=2.8, end_s=9)) == [28, 29]  # partly behind: up to the end
    assert shown(read_frames(path, 4, start_s=2.96)) == [29]  # the last frame is on screen until 3.0


def test_a_stretch_behind_the_end_names_its_document():
    preprocessor = Preprocessor(build_tokenizer(), InternVLPrompting(InternVLSettings(tile_size=28)))
    video = VideoInput(MEDIA / "04_cfr.mp4", start_s=5)
    (outcome,) = prepare_ahead(preprocessor, [Request("films/test/7", (Message("user", (video, Text("?"))),))])
    assert isinstance(outcome, DocumentError)
    assert "films/test/7" in str(outcome)
    assert "is 3.00 s long and the requested interval begins at 5 s" in str(outcome)


def test_a_stretch_at_a_constant_rate_is_rounded_to_frames(shown):
    path = MEDIA / "04_cfr.mp4"
    assert shown(read_frames(path, 64, start_s=0.96, end_s=1.34)) == [10, 11, 12, 13]
    assert shown(read_frames(path, 2, start_s=1.0, end_s=1.8)) == [12, 16]
    assert shown(read_frames(path, 64, end_s=0.3)) == [0, 1, 2, 3]


@pytest.mark.parametrize("name", ["vfr.mkv", "vfr.mp4"])
def test_a_stretch_at_a_variable_rate_is_found_by_time(write_at, shown, name):
    # Frames 0 to 19 within 2 s, then one a second: frame 19 + n begins at 1 + n s. The average is 2.5 frames a second.
    path = write_at(name, [*(index / 10 for index in range(20)), *range(2, 12)])
    assert shown(read_frames(path, 64, start_s=5, end_s=8)) == [23, 24, 25, 26]
    assert shown(read_frames(path, 64, start_s=0.5, end_s=0.8)) == [5, 6, 7, 8]
    assert shown(read_frames(path, 64, start_s=5.2, end_s=5.9)) == [23]  # on screen all the while
    assert shown(read_frames(path, 64, start_s=9)) == [27, 28, 29]
    assert shown(read_frames(path, 2, start_s=1, end_s=6)) == [13, 20]  # of frames 10 to 24: segments of 7
    assert shown(read_frames(path.read_bytes(), 64, start_s=5, end_s=8)) == [23, 24, 25, 26]
    assert len(read_frames(path, 64)) == 30
    with pytest.raises(MediaError, match="begins at 50 s"):
        read_frames(path, 4, start_s=50, end_s=60)


def test_seconds_count_from_the_first_frame(write_at, shown):
    path = write_at("late.mkv", [7, 7.1, 7.2, 9, 10, 11])
    assert shown(read_frames(path, 64, start_s=2, end_s=3)) == [3, 4]


def test_frames_that_begin_in_a_stretch_or_the_one_on_screen():
    times = [0.0, 1.0, 2.0, 60.0]
    assert frames_between(times, 1.0, 2.0) == (1, 2)
    assert frames_between(times, 0.5, 2.5) == (1, 2)
    assert frames_between(times, 30.0, 40.0) == (2, 2)
    assert frames_between(times, 60.0, 99.0) == (3, 3)


@pytest.fixture
def asked_for():
    """A server on this machine that notes what it is asked for, and its port."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server.server_port, asked
    server.shutdown()
    thread.join()
    server.server_close()


def test_no_name_is_an_address_to_ffmpeg(asked_for, tmp_path, monkeypatch):
    port, asked = asked_for
    shutil.copy(MEDIA / "04_cfr.mp4", tmp_path / "a.mp4")
    monkeypatch.chdir(tmp_path)
    for name in (
        f"http:/127.0.0.1:{port}/a.mp4",
        f"HTTP:127.0.0.1:{port}/a.mp4",
        f"tcp:127.0.0.1:{port}",
        f"cache:http:/127.0.0.1:{port}/a.mp4",
        "concat:a.mp4|a.mp4",
        "subfile,,start,0,end,3000,,:a.mp4",
        "crypto:a.mp4",
        "data:video/mp4;base64,AAAA",
        "pipe:0",
        "fd:0",
    ):
        with pytest.raises(MediaError, match="does not exist"):
            read_frames(name, 2)
    assert asked == []
    assert len(read_frames("a.mp4", 2)) == 2  # a plain name
    shutil.copy("a.mp4", "concat:b.mp4")
    assert len(read_frames("concat:b.mp4", 2)) == 2  # and one that only looks like an address


@pytest.mark.parametrize("name", ["list.m3u8", "list.mp4", "list.ffconcat", "list.sdp", "list.mpd", "%d.png"])
def test_a_local_list_leads_nowhere(asked_for, tmp_path, monkeypatch, name):
    port, asked = asked_for
    shutil.copy(MEDIA / "04_cfr.mp4", tmp_path / "a.mp4")
    address = f"http://127.0.0.1:{port}/a.ts"
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n{address}\n#EXTINF:3,\na.mp4\n#EXT-X-ENDLIST\n"
    contents = {
        "list.ffconcat": f"ffconcat version 1.0\nfile a.mp4\nfile {address}\n",
        "list.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=a\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
        "list.mpd": f'<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>{address}</BaseURL>',
    }
    (tmp_path / name).write_text(contents.get(name, playlist))
    for source in (tmp_path / name, (tmp_path / name).read_bytes()):
        with pytest.raises(MediaError, match=r"can't be read.*in one local file"):
            read_frames(source, 2)
    assert asked == []


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    for name in (tmp_path / "pipe.mp4", tmp_path):
        with pytest.raises(MediaError, match="it is not a file"):
            read_frames(name, 2)
