"""Frames that are sought are those that reading from the start gives."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from vico_eval.engine import video_file
from vico_eval.engine.media import read_frames
from vico_eval.engine.video_file import decode
from vico_eval.errors import MediaError

MEDIA = Path(__file__).parent.parent / "golden" / "media"
NUM_FRAMES = 120


def write(path, *, codec="libx264", options=None, gop=12, b_frames=2, times=None, lead=0, **writing):
    """A film of moving noise, in which no two frames are alike."""
    with av.open(str(path), "w", options=writing) as container:
        stream = container.add_stream(codec, rate=25, options=options or {})
        stream.width = stream.height = 48
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = gop
        stream.codec_context.max_b_frames = b_frames
        stream.codec_context.time_base = Fraction(1, 1000)
        rng = np.random.default_rng(0)
        noise = rng.integers(0, 255, (48, 48 + NUM_FRAMES, 3), dtype=np.uint8)
        for index in range(NUM_FRAMES):
            pixels = np.ascontiguousarray(noise[:, index : index + 48])
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = lead + (index * 40 if times is None else times[index])
            frame.time_base = Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


FILMS = {
    "closed.mp4": {},
    "closed.mkv": {},
    "index_first.mp4": {"movflags": "faststart"},
    "open.mp4": {"options": {"x264-params": "open-gop=1:keyint=12:min-keyint=12:scenecut=0"}},
    "open.mkv": {"options": {"x264-params": "open-gop=1:keyint=12:min-keyint=12:scenecut=0"}},
    "simple.mp4": {"codec": "mpeg4", "b_frames": 0},
    "b_frames.mp4": {"codec": "mpeg4", "b_frames": 2},
    "vp9.webm": {"codec": "libvpx-vp9", "b_frames": 0},
    "late.mkv": {"lead": 7000},
    "variable.mp4": {"times": [*(40 * i for i in range(60)), *(2400 + 500 * i for i in range(60))]},
    "variable.mkv": {"times": [*(40 * i for i in range(60)), *(2400 + 500 * i for i in range(60))]},
    "no_index.ts": {},
    "no_index.avi": {"codec": "mpeg4", "b_frames": 0},
    "one_key.mp4": {"gop": 1000, "options": {"x264-params": "scenecut=0:keyint=1000"}},
}
WANTED = [(5,), (0, 60, 119), (30, 31, 32, 90), (11, 12, 13, 23, 24, 25), tuple(range(7, 120, 15)), (117,)]


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    folder, written = tmp_path_factory.mktemp("films"), {}

    def get(name):
        if name not in written:
            written[name] = write(folder / name, **FILMS[name])
        return written[name]

    return get


@pytest.fixture
def from_start(monkeypatch):
    """Decodes without seeking."""

    def read(*given):
        with monkeypatch.context() as patch:
            patch.setattr(video_file, "seek_frames", lambda *_: None)
            return decode(*given)

    return read


def pixels(decoded):
    return np.stack([np.asarray(frame) for frame in decoded.frames])


@pytest.mark.parametrize("name", FILMS)
def test_the_same_frames_as_from_the_start(name, film, from_start):
    path = film(name)
    for wanted in WANTED:
        expected, found = from_start(path, name, wanted), decode(path, name, wanted)
        assert len(found.frames) == len(wanted)
        np.testing.assert_array_equal(pixels(found), pixels(expected), err_msg=f"{name} {wanted}")
    assert decode(path.read_bytes(), name, (60,)).frames == decode(path, name, (60,)).frames


@pytest.mark.parametrize("name", [name for name in FILMS if not name.startswith(("no_index", "one_key"))])
def test_less_is_decoded(name, film, from_start):
    wanted = (30, 90)
    found = decode(film(name), name, wanted)
    assert len(found.times_s) == len(wanted)
    assert len(from_start(film(name), name, wanted).times_s) == 91


@pytest.mark.parametrize("name", ["no_index.ts", "no_index.avi", "one_key.mp4"])
def test_without_an_index_or_a_gain_it_is_read_from_the_start(name, film):
    assert len(decode(film(name), name, (30, 90)).times_s) == 91


@pytest.mark.parametrize(
    "name", ["01_plain.mp4", "01_rot90.mp4", "02_film_cover.mp4", "02_cover_first.mp4", "04_cfr.mp4"]
)
def test_real_files(name, from_start):
    for wanted in [(0,), (7,), (3, 15), (19,)]:
        expected, found = from_start(MEDIA / name, name, wanted), decode(MEDIA / name, name, wanted)
        assert len(found.frames) == len(expected.frames)
        assert found.frames == expected.frames


def test_a_film_that_is_cut_off_is_an_error_as_before(film, tmp_path):
    whole = film("index_first.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) * 2 // 3])
    assert len(read_frames(film("index_first.mp4"), 8)) == 8
    with pytest.raises(MediaError, match=r"cut\.mp4 (is cut off|can't be read)"):
        read_frames(tmp_path / "cut.mp4", 8)


@pytest.mark.parametrize("name", ["open.mp4", "open.mkv"])
def test_frames_that_are_shown_before_the_key_frame_in_front_of_them(name, film, from_start):
    """Of an open group: they need frames in front of that key frame, so decoding begins at the one before."""
    with av.open(str(film(name))) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    times = sorted(packet.pts for packet in packets)
    leading, key = [], packets[0]
    for packet in packets:
        key = packet if packet.is_keyframe else key
        if packet.pts < key.pts:
            leading.append(times.index(packet.pts))
    assert len(leading) > 5
    for place in leading:
        found = decode(film(name), name, (place,))
        assert found.frames == from_start(film(name), name, (place,)).frames
        assert len(found.times_s) == 1 or place < 12
