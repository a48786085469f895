"""A stream in lanes: every process reads its own, and a run that goes on reads what is left."""

import json
from itertools import islice

import numpy as np
import pytest
from datasets import Dataset, IterableDataset

from vico_eval.errors import ConfigError
from vico_eval.training.data.config import DataConfig
from vico_eval.training.data.opening import open_corpus
from vico_eval.training.data.places import Places
from vico_eval.training.data.prepare import TrainingSample
from vico_eval.training.data.reading.conversations import Columns, Reading
from vico_eval.training.data.reading.row_stream import Mark, RowStream
from vico_eval.training.data.stream import Skipped, TrainingStream

SHARDS, ROWS = 12, 10
"""Files, and rows in each."""


def turns(number):
    said = [{"role": "user", "content": f"{number} " + "q" * (number % 7)}, {"role": "assistant", "content": "x"}]
    return said[:1] if number % 13 == 0 else said  # some have no answer


class Shards:
    """A stream of rows that remembers which of them were read, `shard` and number in it."""

    def __init__(self):
        self.read = []

    def rows(self, shards):
        for shard in shards:
            for row in range(ROWS):
                self.read.append((shard, row))
                yield {"messages": turns(shard * ROWS + row)}

    def stream(self, shuffle_buffer=12):
        rows = IterableDataset.from_generator(self.rows, gen_kwargs={"shards": list(range(SHARDS))})
        return RowStream(rows, "rows", Columns(images=None), Reading(), shuffle_buffer=shuffle_buffer)


class Keys:
    """In the place of `Prepare`: makes samples of keys alone."""

    def __call__(self, conversation, epoch):
        none = np.zeros(0, dtype=np.int64)
        return TrainingSample(conversation.key, none, none, none, [], [], none, 0)

    def estimate(self, conversation):
        return len(conversation.messages[0].content[0].text)


SIZES = {"seed": 0, "global_batch": 12, "micro_batch": 2, "window_steps": 2, "workers": 2}


def run(source, num_steps, start=0, places=None, **sizes):
    """The keys of each step's micro-batches."""
    steps = TrainingStream(source, Keys(), **{**SIZES, **sizes}).steps(start, places)
    found = []
    try:
        for batch in islice(steps, num_steps):
            if places is not None:
                places.reach(batch.step)
            found.append([[sample.key for sample in micro_batch] for micro_batch in batch.micro_batches])
    finally:
        steps.close()
    return found


@pytest.fixture
def shards(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    return Shards()


@pytest.mark.parametrize("world", [2, 3, 6])
def test_a_process_reads_its_own_shards_and_no_others(shards, world):
    whole = run(shards.stream(), 8)
    read = set()
    for rank in range(world):
        shards.read.clear()
        own = run(shards.stream(), 8, rank=rank, world=world)
        assert own == [step[rank::world] for step in whole]  # the same steps, whatever the number of processes
        of_rank = {shard for shard, _ in shards.read}
        assert len(of_rank) == SHARDS // world
        assert not read & of_rank
        read |= of_rank
    assert read == set(range(SHARDS))


def test_an_epoch_has_every_row_once_in_a_new_order(shards):
    def said_by(seed):
        steps = run(shards.stream(60), 20, window_steps=1, seed=seed)
        return [key for step in steps for micro_batch in step for key in micro_batch]

    said = said_by(0)
    epochs = [[key.partition(", ")[2] for key in said if f"epoch {epoch}," in key] for epoch in (0, 1)]
    rows = sorted(f"shard {shard}, row {row}" for shard in range(SHARDS) for row in range(ROWS))
    assert [sorted(epoch) for epoch in epochs] == [rows, rows]
    assert epochs[0] != epochs[1]
    assert said != said_by(1)


@pytest.mark.parametrize("rows_together", [1, 12, 40, 1000])
def test_rows_are_shuffled_in_blocks(shards, rows_together):
    lane = shards.stream(rows_together).lane(0, 2, 0, Mark())
    said = [entry.key for entry in lane.take(120)]
    assert len(set(said)) == 120  # two epochs of 60
    in_order = [f"shard {shard}, row {row}" for shard in range(0, SHARDS, 2) for row in range(ROWS)]
    assert sorted(key.partition(", ")[2] for key in said[:60]) == sorted(in_order)
    rows = [int(key.rpartition(" ")[2]) for key in said]
    assert (rows[:10] == list(range(10))) is (rows_together == 1)


@pytest.mark.parametrize("rows_together", [1, 7, 12, 1000])
def test_a_lane_goes_on_from_every_mark(shards, rows_together):
    expected = [entry.key for entry in shards.stream(rows_together).lane(1, 3, 0, Mark()).take(70)]
    for taken in range(60):
        lane = shards.stream(rows_together).lane(1, 3, 0, Mark())
        lane.take(taken)
        mark = Mark(*json.loads(json.dumps(lane.mark)))
        found = shards.stream(rows_together).lane(1, 3, 0, mark).take(10)
        assert [entry.key for entry in found] == expected[taken : taken + 10], (taken, mark)


@pytest.mark.parametrize("stop", [1, 2, 3, 5, 7, 8])
def test_a_run_that_goes_on_does_not_read_again_what_lies_before(shards, stop):
    whole = run(shards.stream(), 11, world=2)
    before = Places(window_steps=2)
    assert run(shards.stream(), stop, places=before, world=2) == whole[:stop]
    state = json.loads(json.dumps(before.state_dict()))
    places = Places(window_steps=2)
    places.load_state_dict(state)
    shards.read.clear()
    source = shards.stream()
    assert run(source, 1, stop, places, world=2) == whole[stop : stop + 1]
    if stop == 7:  # the window of step 6 begins behind 12 samples of each lane: all 10 of a shard, and 2 of the next
        first_read: dict[int, int] = {}
        for shard, _ in shards.read:
            first_read.setdefault(shard % 6, shard)  # by lane
        assert first_read == {lane: source.order(lane, 6, 0, 0)[1] for lane in (0, 2, 4)}
    again = Places(window_steps=2)
    again.load_state_dict(state)
    assert run(shards.stream(), 11 - stop, stop, again, world=2) == whole[stop:]


def test_a_run_goes_on_with_other_processes(shards):
    whole = run(shards.stream(), 9)
    before = Places(window_steps=2)
    run(shards.stream(), 5, places=before, world=3)  # of the first of three processes, which has a third of the lanes
    for world in (1, 2, 6):
        for rank in range(world):
            places = Places(window_steps=2)
            places.load_state_dict(before.state_dict())
            found = run(shards.stream(), 4, 5, places, rank=rank, world=world)
            assert found == [step[rank::world] for step in whole[5:]]


@pytest.mark.parametrize(("num_micro_batches", "expected"), [(1, 1), (4, 4), (8, 8), (24, 12), (13, 1), (256, 8)])
def test_lanes_divide_the_micro_batches_and_have_a_shard_each(shards, num_micro_batches, expected):
    assert shards.stream().num_lanes(num_micro_batches) == expected


@pytest.fixture
def stream_source(tmp_path, shards):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"messages": turns(number)}) for number in range(11)))
    config = {"sources": [{"dataset": str(path), "images": None, "streaming": True, "shuffle_buffer": 4}]}
    return open_corpus(DataConfig.model_validate(config)).train


def test_a_file_is_one_lane_that_all_processes_read(stream_source):
    sizes = {"global_batch": 8}
    steps = TrainingStream(stream_source, Keys(), **{**SIZES, **sizes}).steps()
    samples = [sample for batch in islice(steps, 6) for micro_batch in batch.micro_batches for sample in micro_batch]
    steps.close()
    # 48 samples are four epochs of 11 and a bit; one row of each has no answer.
    assert sum(isinstance(sample, Skipped) for sample in samples) in (4, 5)
    whole = run(stream_source, 6, **sizes)
    assert run(stream_source, 2, 4, **sizes) == whole[4:]
    assert run(stream_source, 6, rank=1, world=2, **sizes) == [step[1::2] for step in whole]


def test_a_data_set_on_the_disk_has_lanes(tmp_path, shards):
    Dataset.from_dict({"messages": [turns(number + 1) for number in range(20)]}).save_to_disk(tmp_path / "data")
    config = {"sources": [{"dataset": str(tmp_path / "data"), "images": None, "streaming": True}]}
    source = open_corpus(DataConfig.model_validate(config)).train
    assert source.num_lanes(16) == 16


def test_an_empty_stream_is_an_error():
    empty = Dataset.from_dict({"messages": [1]}).to_iterable_dataset().filter(lambda row: False)
    source = RowStream(empty, "nothing", Columns(images=None), Reading(), shuffle_buffer=2)
    with pytest.raises(ConfigError, match="nothing is empty"):
        run(source, 1)
