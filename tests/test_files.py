"""Files that are written whole or not at all."""

import json
import os

import pytest
from safetensors import SafetensorError

from vico_eval.errors import OutputError
from vico_eval.files import new_folder, unfinished, write_json, write_text


def test_a_file_keeps_its_content_until_the_new_one_is_on_the_disk(tmp_path, monkeypatch):
    path = tmp_path / "record.json"
    write_json(path, {"a": 1})
    assert json.loads(path.read_text()) == {"a": 1}

    def full(_):
        assert json.loads(path.read_text()) == {"a": 1}
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_text(path, "other")
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_number_that_json_lacks_is_refused_before_anything_is_written(tmp_path):
    path = tmp_path / "record.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1}


def test_a_new_folder_appears_when_all_of_it_is_there(tmp_path):
    out = tmp_path / "deep" / "out"
    with new_folder(out) as folder:
        (folder / "one").touch()
        assert not out.exists()
        assert unfinished(out) == [folder]
    assert [path.name for path in out.iterdir()] == ["one"]
    assert unfinished(out) == []


@pytest.mark.parametrize("error", [OSError("disk full"), SafetensorError("disk full")])
def test_a_folder_that_can_not_be_filled_goes_and_what_was_there_stays(error, tmp_path):
    out = tmp_path / "out"
    out.mkdir()

    def fill():
        with new_folder(out) as folder:
            (folder / "one").touch()
            raise error

    with pytest.raises(OutputError, match=f"Can't write into {out}: disk full. Make room"):
        fill()
    assert [*tmp_path.iterdir()] == [out]
    assert not any(out.iterdir())
