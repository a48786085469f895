"""Videos in random frames: which, how many, and what stands beside them."""

import numpy as np
import pytest
from PIL import Image

from vico_eval.engine.requests import ImageInput, Message, Text, VideoInput
from vico_eval.tiny.build import FRAME_REPEATS, FRAMES_PER_SECOND, write_video
from vico_eval.training.data.videos import random_indices, with_random_frames


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize(
    ("total", "num_frames", "stretch", "segments"),
    [
        (12, 4, {}, [(0, 2), (3, 5), (6, 8), (9, 11)]),
        (10, 3, {}, [(0, 2), (3, 5), (6, 9)]),
        (100, 2, {"first": 10, "last": 19}, [(10, 14), (15, 19)]),
        (100, 2, {"first": 96, "last": 200}, [(96, 97), (98, 99)]),
    ],
)
def test_each_segment_gives_any_of_its_frames(total, num_frames, stretch, segments):
    drawn = np.array([random_indices(total, num_frames, rng=rng(seed), **stretch) for seed in range(300)])
    for column, (first, last) in zip(drawn.T, segments, strict=True):
        assert set(column) == set(range(first, last + 1))


def test_a_short_stretch_gives_each_frame_once():
    assert random_indices(3, 8, rng=rng()) == [0, 1, 2]
    assert random_indices(9, 8, first=4, last=4, rng=rng()) == [4]


@pytest.fixture
def film(tmp_path):
    """Twelve greys, each for FRAME_REPEATS frames."""
    path = tmp_path / "film.mp4"
    write_video(path, tuple(Image.new("RGB", (64, 64), (20 * shade,) * 3) for shade in range(12)))
    return path


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "frames"
    path.mkdir()
    for number in range(12):
        Image.new("RGB", (8, 8), (20 * number,) * 3).save(path / f"film_{number}.png")
    return path


def shown(source, fewest, most, seed=0):
    """The numbers of the frames that a conversation with one video shows, and its words."""
    messages = [Message("user", (Text("See:"), VideoInput(source), Text("What?")))]
    asked = with_random_frames(messages, fewest, most, rng(seed))
    (message,) = asked.messages
    frames = [part for part in message.content if isinstance(part, ImageInput)]
    assert all(frame.is_frame and frame.is_inline for frame in frames)
    assert asked.frames_of == (len(frames),)
    words = "".join("*" if isinstance(part, ImageInput) else part.text for part in message.content)
    return [grey(frame) for frame in frames], words


def grey(frame):
    return round(frame.source.getpixel((0, 0))[0] / 20)


@pytest.mark.parametrize("kind", ["film", "folder"])
def test_as_many_frames_as_are_drawn_each_with_its_label(kind, request):
    source = request.getfixturevalue(kind)
    seen = {len(shown(source, 2, 4, seed)[0]) for seed in range(20)}
    assert seen == {2, 3, 4}
    numbers, words = shown(source, 3, 3)
    assert numbers == sorted(numbers)
    assert words == "See:\nFrame-1: *\nFrame-2: *\nFrame-3: *\nWhat?"
    assert shown(source, 3, 3) == (numbers, words)
    assert any(shown(source, 3, 3, seed)[0] != numbers for seed in range(1, 5))


def test_a_short_film_repeats_its_last_frame_and_a_folder_does_not(film, folder):
    total = 12 * FRAME_REPEATS
    assert shown(film, total + 2, total + 2)[0] == [*np.repeat(range(12), FRAME_REPEATS), 11, 11]
    assert shown(folder, 14, 14)[0] == [*range(12)]


def test_a_stretch_is_kept_to(film):
    each_s = FRAME_REPEATS / FRAMES_PER_SECOND
    message = Message("user", (VideoInput(film, start_s=3 * each_s, end_s=4.5 * each_s), Text("What?")))
    drawn = [with_random_frames([message], 1, 1, rng(seed)).messages[0].content[1] for seed in range(30)]
    assert {grey(frame) for frame in drawn} == {3, 4}


def test_videos_that_follow_each_other_begin_their_numbers_anew(film):
    content = (VideoInput(film), Text(""), VideoInput(film), Text("Alike?"))
    asked = with_random_frames([Message("user", content)], 2, 2, rng())
    words = "".join(part.text if isinstance(part, Text) else "*" for part in asked.messages[0].content)
    assert words == "Frame-1: *\nFrame-2: *\n" * 2 + "Alike?"
    assert asked.frames_of == (2, 2)
