"""Films that are folders of frames."""

import pytest
from PIL import Image

from vico_eval.engine.frame_folders import in_order, is_folder, read_frame_folder
from vico_eval.errors import MediaError


@pytest.fixture
def folder(tmp_path):
    """Twelve frames of growing grey in wrong order of their letters, and files that are none."""
    for number in range(12):
        Image.new("L", (8, 8), 20 * number).save(tmp_path / f"film_{number}.{'JPG' if number % 2 else 'png'}", "PNG")
    (tmp_path / "Thumbs.db").write_bytes(b"x")
    (tmp_path / "._film_3.jpg").write_bytes(b"x")
    (tmp_path / "more.png").mkdir()
    return tmp_path


def greys(frames):
    return [frame.getpixel((0, 0))[0] // 20 for frame in frames]


def test_frames_come_in_the_order_of_their_numbers_spaced_as_those_of_a_video(folder):
    assert is_folder(folder)
    assert is_folder(f"{folder}/")
    assert greys(read_frame_folder(folder, 12)) == list(range(12))
    # Segments of 11 / 4 frames begin at 1.375.
    assert greys(read_frame_folder(str(folder), 4)) == [1, 4, 7, 9]


@pytest.mark.parametrize(
    "names",
    [
        ["z_1.jpg", "a_2.jpg", "a_10.jpg"],  # as in InternVL's code: the number at the end alone
        ["1.png", "2.png", "10.png"],
        ["shot1-frame2.png", "shot1-frame10.png", "shot2-frame1.png"],
        ["0s.png", "a_1.png"],
    ],
)
def test_the_order_of_frames(names):
    assert in_order(reversed(names)) == names


def test_a_folder_has_no_clock(folder):
    with pytest.raises(MediaError, match="has no times"):
        read_frame_folder(folder, 4, start_s=1)


def test_a_folder_without_frames_and_a_broken_frame_are_named(folder, tmp_path):
    with pytest.raises(MediaError, match=r"more\.png has no frames"):
        read_frame_folder(folder / "more.png", 4)
    (folder / "film_5.JPG").write_bytes(b"x")
    with pytest.raises(MediaError, match=r"film_5\.JPG"):
        read_frame_folder(folder, 12)
    assert not is_folder(folder / "film_0.png")
    assert not is_folder(b"x")
    assert not is_folder("a\0b")
