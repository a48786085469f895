"""Lines as other tools write them, each with what is right: trained on with its pictures, or skipped and counted."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from vico_eval.errors import MediaError
from vico_eval.training.data.reading.conversations import Reading
from vico_eval.training.data.reading.corrupt import CorruptSample
from vico_eval.training.data.reading.sources import JsonLines

LINES = Path(__file__).with_name("formats") / "lines.jsonl"
TAKEN, SKIPPED = "taken", "skipped"


@pytest.fixture
def lines(pictures, tmp_path):
    """The lines, with two pictures of one tile, a film of 0.4 s and a folder of two frames."""
    for name in ("a", "b"):
        shutil.copy(pictures / "one.png", tmp_path / f"{name}.png")
    shutil.copy(pictures / "film.mp4", tmp_path / "v.mp4")
    (tmp_path / "frames").mkdir()
    for number in (1, 2):
        Image.new("RGB", (28, 28)).save(tmp_path / "frames" / f"{number}.png")
    return JsonLines(LINES, Reading(root=tmp_path))


@pytest.mark.parametrize("number", range(6))
def test_a_line_is_taken_with_its_pictures_or_skipped(lines, make_prepare, number):
    right = json.loads(LINES.read_text().splitlines()[number])["_right"]
    num_pictures = [1, 1, None, None, 2, 2][number]
    if num_pictures is None:
        assert right.startswith(SKIPPED)
        with pytest.raises((CorruptSample, MediaError)):
            make_prepare()(lines[number], 0)
    else:
        assert right.startswith(TAKEN)
        assert make_prepare()(lines[number], 0).tile_image.tolist() == list(range(num_pictures))


def test_the_key_that_says_what_is_right_is_named_with_its_count(lines):
    assert lines.survey.unread == {"_right": 6}
