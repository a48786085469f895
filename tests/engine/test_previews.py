"""Small copies of pictures: which, how large, and what becomes of them where they can't be written."""

import threading

import numpy as np
import pytest
from loguru import logger
from PIL import Image, ImageChops

from vico_eval.engine.previews import Previews, open_previews, previewed_frames, small_copy
from vico_eval.errors import ConfigError, OutputError


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def warnings():
    told = []
    sink = logger.add(lambda message: told.append(message.record["message"]), level="WARNING")
    yield told
    logger.remove(sink)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((2480, 3508), (452, 640)),  # 2480 * 640 / 3508 = 452.5, and half goes to even
        ((1280, 320), (640, 160)),
        ((641, 3), (640, 3)),
        ((1, 20000), (1, 640)),
        ((640, 640), (640, 640)),
        ((448, 30), (448, 30)),
    ],
)
def test_the_longest_side_is_640_px_at_most_and_nothing_is_enlarged(size, expected):
    picture = Image.new("RGB", size, "red")
    copy = small_copy(picture)
    assert copy.size == expected
    assert copy.getpixel((0, 0)) == (255, 0, 0)
    assert (picture.size, copy is picture) == (size, False)


def test_a_copy_is_the_picture_in_its_colours_and_holds_no_notes(tmp_path):
    picture = Image.new("RGB", (64, 64), "white")
    picture.paste("red", (20, 0, 21, 64))  # a line of 1 px, which colours at half resolution would lose
    picture.info["comment"] = b"x" * 70000  # more than a JPEG can hold
    Previews(tmp_path).keep("1f2e", {0: picture})
    with Image.open(tmp_path / "1f" / "1f2e-0.jpg") as copy:
        assert (copy.format, copy.mode, copy.size) == ("JPEG", "RGB", (64, 64))
        assert "comment" not in copy.info
        assert max(high for _, high in ImageChops.difference(copy, picture).getextrema()) < 30
    assert "comment" in picture.info


def test_a_page_keeps_what_is_where(tmp_path):
    page = Image.new("RGB", (2480, 3508), "white")
    page.paste("black", (0, 0, 1240, 1754))
    Previews(tmp_path).keep("1f2e", {0: page})
    copy = np.asarray(Image.open(tmp_path / "1f" / "1f2e-0.jpg").convert("L"))
    assert copy.shape == (640, 452)
    assert (copy[10:310, 10:216].max(), copy[330:, :].min(), copy[:, 236:].min()) == (0, 255, 255)


def test_what_is_there_is_left_as_it_is_and_what_is_missing_is_added(tmp_path):
    Previews(tmp_path).keep("1f2e", {0: Image.new("RGB", (8, 8))})
    before = (tmp_path / "1f" / "1f2e-0.jpg").read_bytes()
    Previews(tmp_path).keep("1f2e", {0: Image.new("RGB", (9, 9)), 3: Image.new("RGB", (9, 9))})
    assert (tmp_path / "1f" / "1f2e-0.jpg").read_bytes() == before
    assert files(tmp_path) == ["1f/1f2e-0.jpg", "1f/1f2e-3.jpg"]


def test_several_threads_write_the_same_pictures(tmp_path):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8))

    def write():
        for number in range(20):
            Previews(tmp_path).keep("1f2e", {number: picture})

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(files(tmp_path)) == 20  # and no half-written file
    assert len({(tmp_path / name).read_bytes() for name in files(tmp_path)}) == 1


def test_a_disk_that_is_full_is_told_once_and_leaves_nothing_half_written(tmp_path, monkeypatch, warnings):
    previews = Previews(tmp_path)
    previews.keep("0a00", {0: Image.new("RGB", (8, 8))})

    def save(self, path, **_):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(Image.Image, "save", save)
        previews.keep("1f2e", {0: Image.new("RGB", (8, 8)), 1: Image.new("RGB", (8, 8))})
        previews.keep("2f2e", {0: Image.new("RGB", (8, 8))})
    assert len(warnings) == 1
    assert "1f2e-0.jpg can't be written" in warnings[0]
    assert "No space left on device" in warnings[0]
    assert files(tmp_path) == ["0a/0a00-0.jpg"]
    previews.keep("2f2e", {0: Image.new("RGB", (8, 8))})  # there is room again
    assert files(tmp_path) == ["0a/0a00-0.jpg", "2f/2f2e-0.jpg"]


@pytest.mark.parametrize(
    ("frames", "expected"),
    # The middles of eight equal stretches of 63 / 8 frames: 3.9, 11.9 and so on.
    [(1, [0]), (8, list(range(8))), (64, [3, 11, 19, 27, 35, 42, 50, 58])],
)
def test_of_a_video_eight_frames_are_kept(frames, expected):
    assert previewed_frames(frames) == expected


def test_the_model_argument(tmp_path):
    default = tmp_path / "run" / "previews"
    assert open_previews(False, default) is None
    assert not default.exists()
    assert open_previews(True, default).folder == default
    assert open_previews(str(tmp_path / "shared"), default).folder == tmp_path / "shared"
    assert (tmp_path / "shared").is_dir()


@pytest.mark.parametrize("value", [1, 0, "", None, 0.5])
def test_a_model_argument_that_is_none(tmp_path, value):
    with pytest.raises(ConfigError, match="expected true, false or a folder"):
        open_previews(value, tmp_path / "previews")


def test_a_folder_that_cannot_be_made_is_an_error_before_anything_is_asked(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match=r"previews .*file/previews can't be created.*Pass previews="):
        Previews(tmp_path / "file" / "previews")
