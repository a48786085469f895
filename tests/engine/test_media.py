"""Reading images and videos, and what is said about those that can't be read."""

import io
import os

import av
import datasets
import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, ImageFile

from vico_eval.engine.media import (
    RASTER_FORMATS,
    frame_indices,
    load_image,
    read_frames,
    start_no_ghostscript,
    whole_images_only,
)
from vico_eval.errors import MediaError


def encoded(image, kind="PNG"):
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture
def photo():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8))


def test_every_way_to_name_an_image(photo, tmp_path):
    path = tmp_path / "a photo.png"
    photo.save(path)
    for source in (photo, path, str(path), path.as_uri(), path.read_bytes()):
        np.testing.assert_array_equal(np.asarray(load_image(source)), np.asarray(photo))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "L", "P", "1", "CMYK", "I;16"])
def test_every_mode_becomes_rgb(mode):
    image = Image.new(mode, (4, 3))
    assert load_image(image).mode == "RGB"
    assert load_image(image).size == (4, 3)


def test_alpha_is_dropped():
    assert load_image(Image.new("RGBA", (2, 2), (9, 8, 7, 0))).getpixel((0, 0)) == (9, 8, 7)


def test_an_image_given_open_stays_open(photo, tmp_path):
    photo.save(tmp_path / "a.png")
    image = Image.open(tmp_path / "a.png")
    load_image(image)
    assert image.getpixel((0, 0)) == photo.getpixel((0, 0))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP"])
def test_a_cut_off_image(photo, kind, tmp_path, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)  # as lmms-eval leaves it
    path = tmp_path / "cut"
    content = encoded(photo, kind)
    path.write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(MediaError, match=r"image .*cut can't be read"):
        load_image(path)
    with pytest.raises(MediaError, match=f"image of {len(content) * 2 // 3} bytes"):
        load_image(path.read_bytes())


def test_what_is_no_image(tmp_path):
    (tmp_path / "words.png").write_text("not a picture")
    (tmp_path / "empty.png").write_bytes(b"")
    for name in ("words.png", "empty.png"):
        with pytest.raises(MediaError, match=f"{name} is not in a supported format"):
            load_image(tmp_path / name)
    with pytest.raises(MediaError, match=r"gone\.png does not exist"):
        load_image(tmp_path / "gone.png")
    with pytest.raises(MediaError, match="can't be read"):
        load_image(tmp_path)


@pytest.fixture
def ghostscript(tmp_path, monkeypatch):
    """A program `gs`, first on the path, that leaves a file behind when it is started; whether it was."""
    (tmp_path / "bin").mkdir()
    program, trace = tmp_path / "bin" / "gs", tmp_path / "started"
    program.write_text(f"#!/bin/sh\ntouch {trace}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    return trace.exists


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\nshowpage\n%%EOF\n"


def test_postscript_starts_no_ghostscript(tmp_path, ghostscript):
    (tmp_path / "a.png").write_bytes(POSTSCRIPT)
    for source in (tmp_path / "a.png", str(tmp_path / "a.png"), POSTSCRIPT):
        with pytest.raises(MediaError, match=r"not in a supported format\. Expected a raster image: JPEG, PNG, "):
            load_image(source)
    with pytest.raises(MediaError, match=r"in the format EPS\. Expected a raster image"):
        load_image(Image.open(tmp_path / "a.png"))
    assert not ghostscript()


def test_postscript_in_a_data_set_starts_no_ghostscript_where_a_harness_runs(ghostscript):
    start_no_ghostscript()
    with pytest.raises(MediaError, match=r"A picture is a PostScript file\. Expected"), whole_images_only():
        datasets.Image().decode_example({"bytes": POSTSCRIPT, "path": None})
    assert not ghostscript()


@pytest.mark.parametrize("kind", sorted({*RASTER_FORMATS} - {"HEIF", "JXL", "PSD"}))  # which Pillow does not write
def test_every_raster_format_is_read(photo, kind):
    assert load_image(encoded(photo.resize((32, 32)), kind)).size == (32, 32)


def test_a_picture_that_is_decoded_later_is_whole_too(photo, tmp_path, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)  # as lmms-eval leaves it
    (tmp_path / "cut.png").write_bytes(encoded(photo)[:900])
    with pytest.raises(MediaError, match=r"cut\.png can't be read"):
        load_image(Image.open(tmp_path / "cut.png"))


def test_an_image_without_pixels():
    with pytest.raises(MediaError, match=r"in memory \(RGB, 0 x 7 px\) is 0 x 7 px"):
        load_image(Image.new("RGB", (0, 7)))


def test_nothing_is_fetched():
    with pytest.raises(MediaError, match="Download it first"):
        load_image("https://example.com/a.png")


def test_a_decompression_bomb(photo, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(MediaError, match="more than 200 pixels"):
        load_image(encoded(photo))


@pytest.mark.parametrize(
    ("total", "num_frames", "expected"),
    [
        (101, 4, [12, 37, 62, 87]),  # segments of 25: 12.5, 37.5, ... cut
        (10, 3, [1, 4, 7]),  # segments of 3: 1.5, 4.5, 7.5
        (8, 8, [0, 1, 2, 3, 4, 5, 6, 7]),
        (3, 8, [0, 1, 2]),
        (1, 64, [0]),
        (100, 1, [49]),
    ],
)
def test_frames_lie_in_the_middle_of_equal_segments(total, num_frames, expected):
    assert frame_indices(total, num_frames) == expected


def test_a_stretch_of_a_video():
    assert frame_indices(1000, 2, first=100, last=200) == [125, 175]
    assert frame_indices(10, 4, first=8, last=50) == [8, 9]


@pytest.mark.parametrize("container", ["mp4", "mkv", "avi"])
def test_frames_of_a_video(tmp_path, container, write_video, shown):
    path = write_video(tmp_path / f"clip.{container}", 21)
    frames = read_frames(path, 4)
    assert shown(frames) == [2, 7, 12, 17]  # segments of 20 / 4 = 5
    assert {frame.size for frame in frames} == {(32, 32)}
    assert {frame.mode for frame in frames} == {"RGB"}
    assert shown(read_frames(path.read_bytes(), 64)) == list(range(21))
    assert shown(read_frames(str(path), 2, start_s=1.0, end_s=1.8)) == [12, 16]  # frames 10 to 18


def test_no_such_video(tmp_path):
    with pytest.raises(MediaError, match=r"gone\.mp4 does not exist"):
        read_frames(tmp_path / "gone.mp4", 4)


def test_what_is_no_video(tmp_path):
    (tmp_path / "words.mp4").write_text("not a film")
    (tmp_path / "empty.mp4").write_bytes(b"")
    for name in ("words.mp4", "empty.mp4"):
        with pytest.raises(MediaError, match=f"video .*{name} can't be read"):
            read_frames(tmp_path / name, 4)


def test_sound_only(tmp_path):
    with av.open(str(tmp_path / "a.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), dtype=np.int16), format="s16", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
    with pytest.raises(MediaError, match=r"a\.wav has no video stream"):
        read_frames(tmp_path / "a.wav", 4)


def test_frames_that_an_edit_list_hides(tmp_path, write_video, shown):
    path = write_video(tmp_path / "clip.mp4", 30)
    options = {"avoid_negative_ts": "disabled", "use_editlist": "1"}
    with av.open(str(path)) as source, av.open(str(tmp_path / "cut.mp4"), "w", options=options) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.size:
                packet.pts, packet.dts = packet.pts - 8 * packet.duration, packet.dts - 8 * packet.duration
                packet.stream = stream
                target.mux(packet)
    with av.open(str(tmp_path / "cut.mp4")) as container:
        assert container.streams.video[0].frames == 30  # what the file says
    assert shown(read_frames(tmp_path / "cut.mp4", 64)) == list(range(8, 30))
    assert shown(read_frames(tmp_path / "cut.mp4", 3)) == [11, 18, 25]  # segments of 21 / 3 = 7 from frame 8


@pytest.mark.parametrize("share", [0.2, 0.4, 0.6, 0.9])
def test_a_cut_off_video(tmp_path, share, write_video):
    content = write_video(tmp_path / "clip.avi", 30).read_bytes()
    (tmp_path / "cut.avi").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(MediaError, match=r"cut\.avi"):
        read_frames(tmp_path / "cut.avi", 30)
    mp4 = write_video(tmp_path / "clip.mp4", 30).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(mp4[: int(len(mp4) * share)])
    with pytest.raises(MediaError, match=r"cut\.mp4"):
        read_frames(tmp_path / "cut.mp4", 30)
