"""Steps: the same whatever the number of processes and wherever a run begins; corrupt samples keep their place."""

import json
import threading
import time
from itertools import islice

import numpy as np
import pytest

from vico_eval.errors import ConfigError
from vico_eval.training.data.prepare import TrainingSample
from vico_eval.training.data.reading.conversations import Reading
from vico_eval.training.data.reading.sources import JsonLines
from vico_eval.training.data.skips import SkipCount, SkippedTooMany
from vico_eval.training.data.stream import Skipped, StepBatch, TrainingStream, bucketed


class Keys:
    """In the place of `Prepare`: remembers what it prepared, and makes samples of keys alone."""

    def __init__(self):
        self.prepared = []

    def __call__(self, conversation, epoch):
        self.prepared.append(conversation.key)
        none = np.zeros(0, dtype=np.int64)
        return TrainingSample(f"{conversation.key}@{epoch}", none, none, none, [], [], none, 0)

    def estimate(self, conversation):
        return len(conversation.messages[0].content[0].text)


def keys(batch):
    return [[sample.key for sample in micro_batch] for micro_batch in batch.micro_batches]


def run(stream, num_steps, start=0):
    steps = stream.steps(start)
    try:
        return list(islice(steps, num_steps))
    finally:
        steps.close()


@pytest.fixture
def source(write_lines, say):
    """23 samples of different lengths."""
    path = write_lines("x.jsonl", [say("q" * (1 + number * 7 % 23), "x") for number in range(23)])
    return JsonLines(path, Reading())


@pytest.fixture
def make(source):
    def make(prepare=None, source=source, **settings):
        sizes = {"seed": 0, "global_batch": 8, "micro_batch": 2, "window_steps": 2, "workers": 2}
        return TrainingStream(source, prepare or Keys(), **{**sizes, **settings})

    return make


def test_processes_share_the_micro_batches_of_a_step(make):
    whole = run(make(), 9)
    shared = [run(make(rank=rank, world=2), 9) for rank in (0, 1)]
    for alone, *parts in zip(whole, *shared, strict=True):
        assert keys(alone)[0::2] == keys(parts[0])
        assert keys(alone)[1::2] == keys(parts[1])
        assert {part.step for part in parts} == {alone.step}
        assert {part.epoch for part in parts} == {alone.epoch}


@pytest.mark.parametrize("start", [1, 2, 3, 7])
def test_a_run_from_a_step_is_the_rest_of_a_run_from_the_first(make, start):
    expected = run(make(), 10)[start:]
    prepare = Keys()
    found = run(make(prepare), 10 - start, start)
    assert [(one.step, one.epoch, keys(one)) for one in found] == [(one.step, one.epoch, keys(one)) for one in expected]
    # Nothing before it was prepared, and little behind it.
    assert len(prepare.prepared) <= (10 - start + 2) * 8


def test_every_epoch_has_every_sample_once_in_a_new_order(make, source):
    # 23 steps of 8 are eight epochs of 23; without bucketing across steps each epoch's samples are a block.
    stream = make(window_steps=1)
    said = [key for batch in run(stream, 23) for micro_batch in keys(batch) for key in micro_batch]
    assert len(set(said)) == 23 * 8  # a key has its epoch behind it
    orders = [[key.rpartition("@")[0] for key in said if key.endswith(f"@{epoch}")] for epoch in range(8)]
    assert all(sorted(order) == sorted(map(source.key, range(23))) for order in orders)
    assert len(set(map(tuple, orders))) == 8
    assert [batch.epoch for batch in run(stream, 4)] == [0, 0, 0, 1]  # 0-7, 8-15, 16-23, 24-31 of 23 an epoch
    assert keys(run(make(seed=1), 1)[0]) != keys(run(make(), 1)[0])


def test_micro_batches_have_similar_lengths_in_random_order():
    lengths = np.random.default_rng(1).permutation(32)
    found = bucketed(lengths, 4, np.random.default_rng(0))
    assert sorted(found.flat) == list(range(32))
    sorted_lengths = [sorted(lengths[row].tolist()) for row in found]
    assert sorted(sorted_lengths) == [list(range(first, first + 4)) for first in range(0, 32, 4)]
    assert sorted_lengths != sorted(sorted_lengths)


def test_windows_are_bucketed(make, source):
    def spread(**settings):
        batches = run(make(**settings), 12)
        length = {source.key(index): 1 + index * 7 % 23 for index in range(23)}
        found = [[length[key.rpartition("@")[0]] for key in row] for batch in batches for row in keys(batch)]
        return np.mean([max(row) - min(row) for row in found])

    assert spread(window_steps=2) < spread(window_steps=1) / 1.5


@pytest.mark.parametrize(("global_batch", "micro_batch", "world"), [(8, 3, 1), (8, 2, 3), (0, 1, 1), (4, 4, 2)])
def test_sizes_have_to_divide(make, global_batch, micro_batch, world):
    with pytest.raises(ConfigError, match=f"multiple of {micro_batch * world}"):
        make(global_batch=global_batch, micro_batch=micro_batch, world=world)


def test_preparation_is_ahead_bounded_and_ends_with_the_iterator(make):
    prepare = Keys()
    before = threading.active_count()
    steps = make(prepare).steps()
    next(steps)
    deadline = time.monotonic() + 10
    while len(prepare.prepared) < 16 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(prepare.prepared) == 16  # the step that was taken and the next one
    assert threading.active_count() > before
    steps.close()
    assert threading.active_count() == before


def test_a_wrong_stop_of_the_process_is_not_a_skipped_sample(make):
    class Stops(Keys):
        def __call__(self, conversation, epoch):
            raise SystemExit

    with pytest.raises(SystemExit):
        run(make(Stops()), 1)


def test_a_line_is_parsed_once_for_its_length_and_its_preparation(make, source):
    class Counted:
        num_read = 0

        def __len__(self):
            return len(source)

        def key(self, index):
            return source.key(index)

        def __getitem__(self, index):
            self.num_read += 1
            return source[index]

    counted = Counted()
    assert len(run(make(source=counted), 6)) == 6
    # Three windows of 16 samples were trained on; at most two more are planned. Read twice they would be 96 and more.
    assert counted.num_read <= 5 * 16


@pytest.fixture
def corrupt(write_lines, say, pictures):
    """A sample of every kind that can't be used, after two good ones."""
    stranger = say("What?", "x")
    stranger["conversations"][1]["from"] = "tool"
    lines = [
        say("<image>What?", "A cat.", image="wide.png"),
        say("<video>What?", "A cat.", video="film.mp4"),
        say("<image>", "x", image="cut.png"),
        say("<image>", "x", image="missing.png"),
        say("<video>", "x", video="one.jpg"),
        '{"conversations": [',
        say("What?"),
        say("<image><image>", "x", image="one.png"),
        say("<image>", "x", image=["one.png", "one.png"]),
        stranger,
        say("What?", ""),
        say("long " * 500, "x"),
    ]
    return JsonLines(write_lines("corrupt.jsonl", lines), Reading(root=pictures))


KINDS = {"media": 3, "line": 1, "turns": 2, "marks": 2, "empty answer": 1, "too long": 1}


def test_corrupt_samples_keep_their_places_and_are_counted(make, make_prepare, corrupt, tmp_path):
    batch = run(make(make_prepare(), corrupt, global_batch=12, micro_batch=3, window_steps=1), 1)[0]
    assert [len(micro_batch) for micro_batch in batch.micro_batches] == [3] * 4
    samples = [sample for micro_batch in batch.micro_batches for sample in micro_batch]
    whole = {sample.key for sample in samples if isinstance(sample, TrainingSample)}
    assert whole == {corrupt.key(0), corrupt.key(1)}
    skipped = [sample for sample in samples if isinstance(sample, Skipped)]
    assert {kind: sum(one.kind == kind for one in skipped) for kind in KINDS} == KINDS
    assert {sample.key for sample in samples} == {corrupt.key(index) for index in range(12)}

    count = SkipCount(tmp_path / "run", rank=3)
    count.count(batch)
    assert (count.num_samples, count.num_skipped) == (12, 10)
    listed = [json.loads(line) for line in (tmp_path / "run" / "skipped.rank3.jsonl").read_text().splitlines()]
    assert {(entry["key"], entry["kind"], entry["reason"]) for entry in listed} == {
        (one.key, one.kind, one.reason) for one in skipped
    }
    assert {entry["step"] for entry in listed} == {0}
    count.check(0.84)
    with pytest.raises(
        SkippedTooMany, match=r"10 of 12 .* 83\.33%; expected at most 83\.00% .*skipped\.rank\*"
    ) as told:
        count.check(0.83)
    assert "3 media, such as" in str(told.value)
    assert corrupt.key(10) in str(told.value)


def test_a_clip_behind_the_end_of_its_video_is_a_corrupt_sample(make, make_prepare, write_lines, say, pictures):
    clips = [[0, 1], [100, 101]]
    lines = [say("<video>What?", "A cat.", video="film.mp4", clip=clip) for clip in clips]
    source = JsonLines(write_lines("clips.jsonl", lines), Reading(root=pictures))
    batch = run(make(make_prepare(), source, global_batch=2, micro_batch=1, window_steps=1), 1)[0]
    skipped = [one for samples in batch.micro_batches for one in samples if isinstance(one, Skipped)]
    assert [(one.key, one.kind) for one in skipped] == [(source.key(1), "media")]
    assert "s long and the requested interval begins at 100 s" in skipped[0].reason


def batch_of(step, *reasons):
    return StepBatch(step, 0, [[Skipped(f"key {step}", "media", reason) for reason in reasons]])


def test_a_count_goes_on_from_a_checkpoint(tmp_path):
    count = SkipCount(tmp_path)
    count.count(batch_of(0, "a", "b"))
    state = json.loads(json.dumps(count.state_dict()))
    count.count(batch_of(1, "c"))  # after the checkpoint: it comes again

    resumed = SkipCount(tmp_path)
    resumed.load_state_dict(state)
    resumed.count(batch_of(1, "c"))
    resumed.count(batch_of(2, "d"))
    lines = [json.loads(line)["reason"] for line in (tmp_path / "skipped.rank0.jsonl").read_text().splitlines()]
    assert lines == ["a", "b", "c", "d"]
    assert resumed.num_skipped == 4
    with pytest.raises(SkippedTooMany, match="8 of 8"):
        resumed.check(0.5, [resumed.state_dict()])

    anew = SkipCount(tmp_path)
    anew.count(batch_of(0, "e"))
    assert len((tmp_path / "skipped.rank0.jsonl").read_text().splitlines()) == 1


def test_no_sample_is_no_share(tmp_path):
    SkipCount(tmp_path).check(0)
