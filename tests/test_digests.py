"""Large files are read once, and a cache that is broken costs time only."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256

import pytest

from vico_eval import digests
from vico_eval.digests import file_digest, remembered


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """The folder of the cache, where files of any size are remembered."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(digests, "REMEMBERED_BYTES", 0)
    return tmp_path / "cache" / "vico-eval" / "digests"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "weights" / "file"
    path.parent.mkdir()
    path.write_bytes(b"one")
    return path


class Counting:
    """Reads a file and counts how often."""

    def __init__(self):
        self.times = 0

    def __call__(self, path):
        self.times += 1
        return {"text": path.read_text()}


def test_the_digest_is_that_of_the_whole_file(file, monkeypatch):
    monkeypatch.setattr(digests, "BUFFER_BYTES", 2)
    assert file_digest(file) == sha256(b"one").hexdigest()


def test_a_file_is_read_once_until_it_changes(file, cache):
    read = Counting()
    assert [remembered("text", file, read) for _ in range(3)] == [{"text": "one"}] * 3
    assert read.times == 1
    assert {path.parent for path in cache.rglob("*") if path.is_file()} == {cache}
    assert list(file.parent.iterdir()) == [file]  # nothing is written beside it
    before = file.stat()
    file.write_bytes(b"two")  # as long as before, and with the time set back
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert remembered("text", file, read) == {"text": "two"}
    assert read.times == 2


def test_a_link_is_known_by_the_file_that_it_leads_to(file, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(file)
    read = Counting()
    assert remembered("text", link, read) == remembered("text", file, read)
    assert read.times == 1


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b'{"digests": {"text": "lie"}}', b"\0" * 99, None])
def test_an_entry_that_is_broken_is_read_anew(file, cache, content):
    read = Counting()
    remembered("text", file, read)
    (entry,) = (path for path in cache.iterdir() if path.suffix != ".lock")
    if content is None:
        values = json.loads(entry.read_text())
        content = json.dumps(values | {"digests": {"text": 1}}).encode()
    entry.write_bytes(content)
    assert remembered("text", file, read) == {"text": "one"}
    assert remembered("text", file, read) == {"text": "one"}
    assert read.times == 2


def test_without_a_folder_to_remember_in_files_are_read_each_time(file, cache):
    cache.parent.parent.mkdir(parents=True)
    cache.parent.write_text("in the way")
    read = Counting()
    assert remembered("text", file, read) == remembered("text", file, read) == {"text": "one"}
    assert read.times == 2


def test_several_that_ask_at_once_get_the_same(file):
    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(file_digest, [file] * 8))) == 1
