"""Films are read once for questions that follow each other."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from vico_eval.engine import films as films_module
from vico_eval.engine.films import KEPT, Films
from vico_eval.engine.requests import VideoInput
from vico_eval.errors import MediaError
from vico_eval.families.family import Stand, Strip
from vico_eval.families.frame_choice import frame_indices


class AsTheyAre:
    """Shows frames as they are."""

    def choose_frames(self, total, fps, num_frames, rate=None, **stretch):
        return frame_indices(total, num_frames, **stretch)

    def show(self, clip):
        return Strip(clip.frames, Stand(""))


@pytest.fixture
def read(monkeypatch):
    """Sources that were decoded."""
    decoded = []
    read_clip = films_module.read_clip

    def note(source, *given, **named):
        decoded.append(source)
        return read_clip(source, *given, **named)

    monkeypatch.setattr(films_module, "read_clip", note)
    return decoded


@pytest.fixture
def films():
    return Films(AsTheyAre())


def test_a_film_is_read_once_and_shows_the_same(films, read, write_video, tmp_path, shown):
    film = write_video(tmp_path / "a.mp4", 12)
    first = films.read(VideoInput(film), 4)
    again = films.read(VideoInput(str(film)), 4)
    assert again is first
    assert len(read) == 1
    assert shown(first.pictures) == shown(Films(AsTheyAre()).read(VideoInput(film), 4).pictures)


def test_what_shows_other_frames_is_read_anew(films, read, write_video, tmp_path):
    film = write_video(tmp_path / "a.mp4", 12)
    asked = [(VideoInput(film), 4), (VideoInput(film), 5), (VideoInput(film, end_s=0.5), 4)]
    for video, number in asked:
        films.read(video, number)
    assert len(read) == 3
    write_video(film, 24)
    os.utime(film, (0, 0))
    films.read(VideoInput(film), 4)
    assert len(read) == 4
    # What has no file is not known again.
    for _ in range(2):
        films.read(VideoInput(film.read_bytes()), 4)
    assert len(read) == 6


def test_only_the_last_films_are_kept(films, read, write_video, tmp_path):
    asked = [VideoInput(write_video(tmp_path / f"{number}.mp4", 6)) for number in range(KEPT + 1)]
    for video in asked:
        films.read(video, 2)
    films.read(asked[-1], 2)
    assert len(read) == KEPT + 1
    films.read(asked[0], 2)
    assert len(read) == KEPT + 2


def test_threads_that_ask_at_once_wait_for_the_one_that_reads(films, write_video, tmp_path, monkeypatch):
    film, read_clip = write_video(tmp_path / "a.mp4", 6), films_module.read_clip
    decoded, may_go_on = [], threading.Event()

    def slowly(source, *given, **named):
        decoded.append(source)
        may_go_on.wait(10)
        return read_clip(source, *given, **named)

    monkeypatch.setattr(films_module, "read_clip", slowly)
    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(films.read, VideoInput(film), 2) for _ in range(3)]
        may_go_on.set()
        assert len({id(one.result()) for one in asked}) == 1
    assert len(decoded) == 1


def test_a_film_that_cannot_be_read_is_tried_again(films, read, write_video, tmp_path):
    film = tmp_path / "a.mp4"
    film.write_text("no film")
    for _ in range(2):
        with pytest.raises(MediaError, match=r"a\.mp4"):
            films.read(VideoInput(film), 2)
    assert len(read) == 2
    write_video(film, 6)
    assert len(films.read(VideoInput(film), 2).pictures) == 2
