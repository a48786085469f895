"""Samples by number and the endless order of them; rows of `datasets` data sets in every form."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, DatasetDict, Features, Image, List, Value, disable_progress_bars

from vico_eval.engine.requests import ImageInput, Message, Request, Text
from vico_eval.errors import ConfigError
from vico_eval.training.data.config import DataConfig
from vico_eval.training.data.opening import open_corpus
from vico_eval.training.data.reading.conversations import Reading
from vico_eval.training.data.reading.corrupt import CorruptSample
from vico_eval.training.data.reading.row_stream import Mark, RowStream
from vico_eval.training.data.reading.sources import JsonLines, shuffled, split, times

FORMATS = Path(__file__).with_name("formats")


def words(conversation):
    """What was asked."""
    return "".join(part.text for part in conversation.messages[0].content if isinstance(part, Text))


def asked(source):
    return [words(source[index]) for index in range(len(source))]


def corpus(*sources, **settings):
    return open_corpus(DataConfig.model_validate({"sources": list(sources), **settings}))


@pytest.fixture
def lines(write_lines, say):
    return write_lines("a.jsonl", [say(f"a{number}", "x") for number in range(10)])


def test_lines_by_number(write_lines, say):
    path = write_lines("x.jsonl", [say("né", "x"), "  ", say("two", "x"), "{broken", "[" * 100_000])
    source = JsonLines(path, Reading())
    assert len(source) == 4  # an empty line is no sample
    assert [words(source[1]), words(source[0])] == ["two", "né"]
    assert [source.key(index) for index in range(3)] == [f"{path}:1", f"{path}:3", f"{path}:4"]
    assert source[1].key == f"{path}:3"
    for index in (2, 3):
        with pytest.raises(CorruptSample, match="not JSON"):
            source[index]


def test_bytes_that_are_no_text_are_a_corrupt_line(tmp_path):
    (tmp_path / "x.jsonl").write_bytes(b'{"a": "\xff"}\n')
    with pytest.raises(CorruptSample, match="not JSON"):
        JsonLines(tmp_path / "x.jsonl", Reading())[0]


def test_files_that_are_missing_or_empty(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.jsonl can't be read"):
        JsonLines(tmp_path / "none.jsonl", Reading())
    (tmp_path / "empty.jsonl").write_text("\n\n")
    with pytest.raises(ConfigError, match="has no samples"):
        JsonLines(tmp_path / "empty.jsonl", Reading())


SAMPLE = '{"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "x"}]}'


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ((FORMATS / "array.jsonl").read_bytes(), "holds a JSON array"),
        (f"[{SAMPLE}]".encode(), "holds a JSON array"),
        (b"\xef\xbb\xbf \n" + f"[\n{SAMPLE},\n{SAMPLE}\n]".encode(), "not JSON objects|holds a JSON array"),
        (json.dumps(json.loads(SAMPLE), indent=1).encode(), "not JSON objects; expected JSON Lines"),
        (f'{{"data": [\n{SAMPLE},\n{SAMPLE}\n]}}'.encode(), "not JSON objects; expected JSON Lines"),
        (f"{SAMPLE}\n".encode("utf-16") * 2, "not JSON objects; expected JSON Lines"),
        (b'{"images": [{"id": 1}], "annotations": [3]}', "No line .* has conversations or messages .keys found"),
        (b'{"question": "q", "chosen": "a", "rejected": "b"}\n' * 3, "keys found: question, chosen, rejected"),
    ],
)
def test_files_that_are_no_json_lines_are_refused_when_they_are_opened(tmp_path, content, reason):
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    for given in ({"jsonl": str(path)}, meta_of(path)):
        with pytest.raises(ConfigError, match=reason):
            corpus(given)


def meta_of(path):
    meta = path.with_name("meta.json")
    meta.write_text(json.dumps({"only": {"root": "/", "annotation": str(path)}}))
    return {"meta": str(meta)}


def test_a_byte_order_mark_and_other_line_ends_are_no_fault(tmp_path):
    (tmp_path / "x.jsonl").write_bytes(b"\xef\xbb\xbf" + f"{SAMPLE}\r\n{SAMPLE}\r\n".encode())
    assert asked(JsonLines(tmp_path / "x.jsonl", Reading())) == ["q", "q"]


def test_keys_that_are_not_read_are_counted(write_lines, say):
    lines = [say("q", "x", id=number, tools="[]", rank=0) for number in range(3)] + [say("q", "x", tools=None)]
    (found,) = corpus({"jsonl": str(write_lines("x.jsonl", lines))}).found()
    assert found.unread == {"tools": 3, "rank": 3}


def test_what_was_found_tells_changed_files_and_changed_pictures_apart(tmp_path, pictures, write_lines, say):
    shutil.copytree(pictures, tmp_path / "pictures")
    lines = [say("<image>", "x", image="one.png"), say("<image>", "x", image="wide.png"), say("q", "x")]
    path = write_lines("x.jsonl", lines)

    def found(**settings):
        entry = {"root": str(tmp_path / "pictures"), "annotation": str(path), **settings}
        (tmp_path / "meta.json").write_text(json.dumps({"only": entry}))
        (one,) = corpus({"meta": str(tmp_path / "meta.json")}).found()
        return one.identity()

    before = found()
    assert found() == before
    assert found(repeat_time=2)["settings"] != before["settings"]
    shutil.copy(pictures / "one.png", tmp_path / "pictures" / "wide.png")
    assert [name for name, value in found().items() if value != before[name]] == ["pictures"]
    path.write_text(path.read_text().replace('"q"', '"Q"'))
    assert [name for name, value in found().items() if value != before[name]] == ["sha256", "pictures"]


@pytest.mark.parametrize(("factor", "count"), [(0, 0), (0.29, 29), (0.5, 50), (1, 100), (2, 200), (2.3, 230)])
def test_repeat_factors_are_exact(factor, count):
    taken = times(np.arange(100), factor, "name")
    assert len(taken) == count
    # No sample comes twice as often as the factor lets it.
    counts = np.bincount(taken, minlength=100)
    assert counts.max() - counts.min() <= (factor != int(factor))
    np.testing.assert_array_equal(taken, times(np.arange(100), factor, "name"))


def test_a_repeat_factor_that_no_memory_holds_is_refused():
    with pytest.raises(ConfigError, match="name repeated 1e\\+12 times has 1e\\+14 samples; expected at most 1e"):
        times(np.arange(100), 1e12, "name")


def test_a_share_is_drawn_at_random_and_by_name():
    half = times(np.arange(100), 0.5, "name")
    assert half.tolist() != list(range(50))
    assert half.tolist() != times(np.arange(100), 0.5, "other").tolist()


def test_meta_files(tmp_path, write_lines, say, lines):
    other = write_lines("b.jsonl", [say("b", "x", image="b.png")])
    meta = tmp_path / "meta.json"
    entries = {
        "a": {"root": "/a", "annotation": str(lines), "data_augment": False, "repeat_time": 0.5, "length": 10},
        "off": {"root": "/a", "annotation": str(lines), "repeat_time": 0},
        "b": {
            "root": "/b",
            "annotation": str(other),
            "data_augment": True,
            "repeat_time": 2,
            "max_dynamic_patch": 6,
        },
    }
    meta.write_text(json.dumps(entries))
    source = corpus({"meta": str(meta)}).train
    assert len(source) == 7
    assert len(set(asked(source)[:5])) == 5
    assert asked(source)[5:] == ["\nb", "\nb"]
    assert (source[0].augment, source[0].max_tiles) == (False, None)
    assert (source[5].augment, source[5].max_tiles) == (True, 6)
    assert source[5].messages[0].content[0] == ImageInput(Path("/b/b.png"), is_inline=True)
    assert source.key(5) == source.key(6) == f"{other}:1"

    entries["a"]["data_augmentation"] = entries["a"].pop("data_augment")
    meta.write_text(json.dumps(entries))
    with pytest.raises(ConfigError, match=r"'a' .* data_augmentation: Extra inputs .* fields are root, annotation"):
        corpus({"meta": str(meta)})
    meta.write_text("[]")
    with pytest.raises(ConfigError, match="names no data sets"):
        corpus({"meta": str(meta)})


def test_epochs_follow_each_other_each_in_its_own_order(lines):
    source = JsonLines(lines, Reading())
    entries = list(islice(shuffled(source, 0, 0), 30))
    epochs = [[entry.key for entry in entries[first : first + 10]] for first in (0, 10, 20)]
    assert [entry.epoch for entry in entries] == [0] * 10 + [1] * 10 + [2] * 10
    assert all(sorted(epoch) == sorted(map(source.key, range(10))) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert [entry.key for entry in islice(shuffled(source, 0, 13), 17)] == [entry.key for entry in entries[13:]]
    assert [entry.key for entry in islice(shuffled(source, 1, 0), 10)] != epochs[0]
    assert words(entries[0].load()).startswith("a")


def test_held_out_samples_are_trained_on_in_no_repeat(lines):
    both = corpus({"jsonl": str(lines), "repeat": 3}, held_out_share=0.2)
    assert (len(both.train), len(both.held_out)) == (24, 2)
    assert set(asked(both.train)) | set(asked(both.held_out)) == {f"a{number}" for number in range(10)}
    assert not set(asked(both.train)) & set(asked(both.held_out))
    kept, apart = split(10, 0.2, lines.name)
    assert sorted([*kept, *apart]) == list(range(10))
    own = corpus({"jsonl": str(lines)}, held_out=[{"jsonl": str(lines), "repeat": 0.5}])
    assert (len(own.train), len(own.held_out)) == (10, 5)
    assert corpus({"jsonl": str(lines)}).held_out is None
    with pytest.raises(ConfigError, match="leaves no held-out samples"):
        corpus({"jsonl": str(lines)}, held_out_share=0.01)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    disable_progress_bars()
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    # After a stream of parquet files the library waits five seconds for Arrow's threads.
    monkeypatch.setattr("datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN", 0.05, raising=False)


@pytest.fixture
def rows(pictures):
    """Three rows of parts; the second's picture is cut off."""
    files = [(pictures / name).read_bytes() for name in ("one.png", "cut.png", "wide.png")]
    content = [[{"type": "image", "text": None}, {"type": "text", "text": f"q{number}"}] for number in range(3)]
    turns = [
        [{"role": "user", "content": said}, {"role": "assistant", "content": [{"type": "text", "text": "x"}]}]
        for said in content
    ]
    part = {"type": Value("string"), "text": Value("string")}
    features = Features({"chat": List({"role": Value("string"), "content": List(part)}), "pictures": List(Image())})
    pictured = [[{"bytes": file, "path": None}] for file in files]
    return Dataset.from_dict({"chat": turns, "pictures": pictured}, features=features)


COLUMNS = {"messages": "chat", "images": "pictures"}


def lane(source, seed=0, mark=Mark()):  # noqa: B008
    """All of a stream as one lane."""
    return source.lane(0, 1, seed, mark)


@pytest.mark.parametrize("form", ["parquet", "folder", "disk", "splits"])
@pytest.mark.parametrize("streaming", [False, True])
def test_data_sets_with_pictures_in_them(tmp_path, cache, rows, make_prepare, pictures, form, streaming):
    place = tmp_path / "data"
    if form == "parquet":
        place = tmp_path / "data.parquet"
        rows.to_parquet(place)
    elif form == "folder":
        place.mkdir()
        rows.to_parquet(place / "train.parquet")
    elif form == "disk":
        rows.save_to_disk(place)
    else:
        DatasetDict({"test": rows.select([0]), "train": rows}).save_to_disk(place)
    source = corpus({"dataset": str(place), "streaming": streaming, "max_tiles": 4, **COLUMNS}).train
    if streaming:
        samples = [entry.load() for entry in lane(source).take(3)]
        samples.sort(key=words)
    else:
        samples = [source[index] for index in range(len(source))]
        assert source.key(2) == f"{place}:2"
    assert [words(sample) for sample in samples] == ["q0", "q1", "q2"]
    # The bytes are the file's own: nothing was decoded on the way, so a cut-off picture is found when it is prepared.
    assert samples[1].messages[0].content[0] == ImageInput((pictures / "cut.png").read_bytes())
    assert len(make_prepare()(samples[2], 0).tiles) == 3


def test_a_photo_is_trained_on_as_a_harness_shows_it(tmp_path, cache, make_prepare, make_preprocessor):
    photo = (Path(__file__).parents[3] / "golden" / "media" / "17.jpg").read_bytes()
    said = [{"role": "user", "content": "<image>q"}, {"role": "assistant", "content": "x"}]
    rows = Dataset.from_dict({"messages": [said], "images": [[{"bytes": photo, "path": None}]]})
    rows = rows.cast_column("images", List(Image()))
    rows.to_parquet(tmp_path / "data.parquet")
    sample = make_prepare()(corpus({"dataset": str(tmp_path / "data.parquet")}).train[0], 0)
    shown = Dataset.from_parquet(str(tmp_path / "data.parquet"))[0]["images"][0]  # decoded, and turned, by `datasets`
    preprocessor = make_preprocessor()
    asked = preprocessor(Request("a", (Message("user", (ImageInput(shown), Text("q"))),)))
    assert len(sample.tiles) == 9  # 2 x 4 and a thumbnail: the photo is upright
    np.testing.assert_array_equal(sample.tiles, preprocessor.prompting.tiles(asked.pictures))


@pytest.mark.parametrize("streaming", [False, True])
def test_json_of_mixed_contents(tmp_path, cache, pictures, streaming):
    parts = [{"type": "image"}, {"type": "text", "text": "q0"}]
    contents = [parts, "<image>q1", "q2"]
    path = tmp_path / "x.jsonl"
    path.write_text(
        "\n".join(
            json.dumps(
                {
                    "messages": [{"role": "user", "content": content}, {"role": "assistant", "content": "x"}],
                    "images": ["one.png"] if number < 2 else [],
                }
            )
            for number, content in enumerate(contents)
        )
    )
    source = corpus({"dataset": str(path), "root": str(pictures), "streaming": streaming}).train
    loaded = [entry.load() for entry in lane(source).take(3)] if streaming else [source[n] for n in range(3)]
    said = {words(one): one.messages[0].content for one in loaded}
    assert said["q0"][0] == ImageInput(pictures / "one.png")
    assert said["q1"][0] == ImageInput(pictures / "one.png", is_inline=True)
    assert said["q2"] == (Text("q2"),)


def test_rows_can_be_read_by_many_threads(tmp_path, cache, rows):
    rows.save_to_disk(tmp_path / "data")
    source = corpus({"dataset": str(tmp_path / "data"), **COLUMNS}).train
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda index: words(source[index % 3]), range(300)))
    assert found == ["q0", "q1", "q2"] * 100


def test_a_stream_begins_again_in_another_order(tmp_path, cache, say):
    path = tmp_path / "x.jsonl"
    turns = [[{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": "x"}] for n in range(20)]
    path.write_text("\n".join(json.dumps({"messages": turn}) for turn in turns))
    source = corpus({"dataset": str(path), "images": None, "streaming": True, "shuffle_buffer": 8}).train
    assert isinstance(source, RowStream)
    entries = lane(source, seed=3).take(40)
    said = [words(entry.load()) for entry in entries]
    assert [entry.epoch for entry in entries] == [0] * 20 + [1] * 20
    assert sorted(said[:20]) == sorted(said[20:]) == sorted(f"q{n}" for n in range(20))
    assert said[:20] != said[20:]
    assert sorted(entry.key for entry in entries[20:]) == sorted(f"{path}:epoch 1, shard 0, row {n}" for n in range(20))
    again = lane(source, seed=3)
    again.take(13)
    assert [words(entry.load()) for entry in lane(source, 3, again.mark).take(27)] == said[13:]


def test_data_sets_that_can_not_be_used(tmp_path, cache, rows):
    rows.save_to_disk(tmp_path / "data")
    with pytest.raises(ConfigError, match="no column messages, images; it has chat, pictures"):
        corpus({"dataset": str(tmp_path / "data")})
    with pytest.raises(ConfigError, match="can't be loaded"):
        corpus({"dataset": str(tmp_path / "none"), **COLUMNS})
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(ConfigError, match="can't be loaded"):
        corpus({"dataset": str(tmp_path / "x.json"), **COLUMNS})
