"""Shards of a run: which documents each has, who may work beside whom, and what is there when all are done."""

import errno
import fcntl
import json
import subprocess
import sys
from collections import Counter
from datetime import timedelta

import pytest

from vico_eval.errors import ConfigError, OutputError, ReportError
from vico_eval.files import NoLocks
from vico_eval.runs.holding import Held, hold, others_at_work
from vico_eval.runs.merging import check_merged, complete_number, missing_shards
from vico_eval.runs.read import read_record
from vico_eval.runs.schema import TokenAccount
from vico_eval.runs.shards import Shard, ShardTask, parse_shard, read_shards, shard_of, write_shard
from vico_eval.runs.write import RunFolder

from .test_staleness import RECORD, STARTED

ACCOUNT = TokenAccount(
    visual_tokens=4, visual_tokens_uncompressed=4, visual_tokens_per_layer=(4,), text_tokens=3, generated_tokens=2
)
HALVES = (Shard(1, 2), Shard(2, 2))
TASKS = ["read"]


@pytest.mark.parametrize("text", ["0/2", "3/2", "1/0", "1", "a/b", "1/2/3", "-1/2", "1/99999", ""])
def test_a_shard_that_does_not_exist_is_refused(text):
    with pytest.raises(ConfigError, match="expected NUMBER/HOW_MANY"):
        parse_shard(text)
    assert parse_shard(" 2/8") == Shard(2, 8)


@pytest.mark.parametrize("of", [1, 2, 3, 4, 8])
def test_each_document_is_of_one_shard_and_shards_and_their_processes_have_equally_many(of):
    shards = [Shard(number, of) for number in range(1, of + 1)]
    documents = range(of**4)
    assert all(sum(shard.has(document) for shard in shards) == 1 for document in documents)
    # Of any number of documents, no shard has more than one more than another of each full block.
    assert set(Counter(shard_of(document, of) for document in documents).values()) == {of**3}
    assert sorted(shard_of(document, of) for document in range(of)) == list(range(of))
    # lmms-eval gives process 0 of two every second document; the remainder would give it all of shard 1/2.
    of_process = Counter(shard_of(document, of) for document in documents[::2])
    assert of == 1 or len(of_process) == of
    assert max(of_process.values()) <= 2 * min(of_process.values())


def test_a_document_s_shard_never_changes():
    # Its digits to base 3 are 1 0 2: their sum is 3, and the remainder 0. A shard that goes on must have the same ones.
    assert shard_of(11, 3) == 0
    assert [shard_of(document, 2) for document in range(8)] == [0, 1, 1, 0, 1, 0, 0, 1]


def elsewhere(path, shard=None):
    """Holds a lock in another process, until its stdin is closed."""
    code = (
        "import sys; from pathlib import Path; from vico_eval.runs.holding import hold; "
        "from vico_eval.runs.shards import parse_shard; path, *shard = sys.argv[1:]; "
        "held = hold(Path(path), *map(parse_shard, shard)); print('held', flush=True); sys.stdin.read()"
    )
    words = [sys.executable, "-c", code, str(path), *([] if shard is None else [str(shard)])]
    other = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "held\n"
    return other


def test_shards_work_beside_each_other_and_nobody_else_does(tmp_path):
    path = tmp_path / ".lock"
    with elsewhere(path, HALVES[0]) as other:
        hold(path, HALVES[1]).release()
        for refused in (HALVES[0], None, Shard(2, 3)):
            with pytest.raises(Held):
                hold(path, refused)
        assert others_at_work(path, HALVES[1])
        other.kill()
    assert not others_at_work(path, HALVES[1])
    hold(path).release()
    with elsewhere(path) as other:
        with pytest.raises(Held):
            hold(path, HALVES[0])
        other.kill()


@pytest.mark.parametrize("number", [errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS])
def test_a_file_system_without_locks_says_so(number, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(number, "not here")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(NoLocks, match=r"can't be locked \(not here\): its file system has no file locks") as error:
        hold(tmp_path / ".lock")
    assert "another command" not in str(error.value)
    with pytest.raises(OutputError, match="its file system has no file locks"):
        RunFolder(tmp_path, RECORD)


def test_another_fault_of_a_lock_keeps_its_own_words(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.EIO, "disk on fire")

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(OSError, match="disk on fire"):
        hold(tmp_path / ".lock")


def opened(folder, shard=None, **conditions):
    return RunFolder(folder, RECORD.model_copy(update=conditions), resume=True, shard=shard)


def answer(run, *documents):
    for document in documents:
        run.add((f"read/test/{document}", 0, "asked"), "yes", ACCOUNT)


def done(folder, shard, *documents, failed=0):
    run = opened(folder, shard)
    answer(run, *documents)
    run.note_shard({"read": ShardTask(documents=len(documents) + failed, failed=failed)})
    run.close()


def test_shards_write_journals_of_their_own_and_go_on_with_each_other_s(tmp_path):
    first = opened(tmp_path, HALVES[0])
    second = opened(tmp_path, HALVES[1], started=STARTED + timedelta(days=1))
    answer(first, 0, 3)
    answer(second, 1)
    first.add_data_sets({"read": "abc"}, {"read": "def"})
    second.note_model(dtype="float32", device="cpu")
    second.write_record()
    assert len((tmp_path / "answers.rank0.shard1of2.jsonl").read_text().splitlines()) == 2
    assert len((tmp_path / "answers.rank0.shard2of2.jsonl").read_text().splitlines()) == 1
    record = read_record(tmp_path)
    assert record.scorers == {"read": "def"}
    assert record.data_sets == {"read": "abc"}  # of the first shard, though the second wrote last
    assert record.started == RECORD.started
    assert len(record.continued) == 1
    first.close(), second.close()
    whole = opened(tmp_path)
    assert len(whole.answers) == 3


def test_a_shard_leaves_lines_alone_that_another_may_be_writing(tmp_path):
    done(tmp_path, HALVES[0], 0)
    half = tmp_path / "answers.rank0.shard1of2.jsonl"
    half.write_text(half.read_text() + '{"task": "re')
    opened(tmp_path, HALVES[1]).close()
    assert half.read_text().endswith('{"task": "re')
    opened(tmp_path, HALVES[0]).close()
    assert len(half.read_text().splitlines()) == 1


def test_a_shard_of_other_conditions_does_not_set_aside_what_others_are_writing(tmp_path):
    with elsewhere(tmp_path / ".lock", HALVES[0]) as other:
        (tmp_path / "record.json").write_text(json.dumps(RECORD.model_copy(update={"method": "fastv"}).to_dict()))
        with pytest.raises(OutputError, match=r"other shards are running.*it has another method"):
            opened(tmp_path, HALVES[1])
        other.kill()
    run = opened(tmp_path, HALVES[1])
    assert (tmp_path / "record.json.old1").exists()
    run.close()


def test_what_only_the_loaded_model_knows_is_compared_too(tmp_path):
    first, second = (opened(tmp_path, shard, dtype="unknown") for shard in HALVES)
    first.note_model(dtype="float32", device="cpu")
    first.write_record()
    second.note_model(dtype="bfloat16", device="cuda")
    with pytest.raises(OutputError, match="runs with another dtype; expected the same for all shards"):
        second.write_record()


def test_a_run_is_complete_when_all_shards_of_one_number_are(tmp_path):
    done(tmp_path, HALVES[0], 0, 3)
    done(tmp_path, Shard(1, 3))
    shards = read_shards(tmp_path)
    assert missing_shards(shards, TASKS, 2) == [HALVES[1]]
    assert missing_shards(shards, ["doc"], 2) == [*HALVES]
    assert complete_number(shards, TASKS) is None
    done(tmp_path, HALVES[1], 1, failed=1)
    shards = read_shards(tmp_path)
    assert complete_number(shards, TASKS) == 2
    check_merged(tmp_path, shards, TASKS, 2)
    done(tmp_path, HALVES[1], 2)
    write_shard(tmp_path, HALVES[1], {"read": ShardTask(documents=2)})
    shards = read_shards(tmp_path)
    assert complete_number(shards, TASKS) == 2
    check_merged(tmp_path, shards, TASKS, 2)


def test_a_shard_lacks_no_more_answers_than_it_has_noted_failures(tmp_path):
    done(tmp_path, HALVES[0], 0, failed=1)
    done(tmp_path, HALVES[1], 1, failed=1)
    check_merged(tmp_path, read_shards(tmp_path), TASKS, 2)
    write_shard(tmp_path, HALVES[1], {"read": ShardTask(documents=2)})
    with pytest.raises(ReportError, match=r"no answer to document\(s\) 2 of read, although all 2 shards"):
        check_merged(tmp_path, read_shards(tmp_path), TASKS, 2)


def test_a_document_without_an_answer_or_with_two_is_named(tmp_path):
    done(tmp_path, HALVES[0], 0, 3)
    done(tmp_path, HALVES[1], 1, 2)
    shards = read_shards(tmp_path)
    check_merged(tmp_path, shards, TASKS, 2)
    journal = tmp_path / "answers.rank0.shard2of2.jsonl"
    lines = journal.read_text()
    journal.write_text(lines.splitlines()[0] + '\n{"task": "re')
    with pytest.raises(ReportError, match=r"no answer to document\(s\) 2 of read, although all 2 shards"):
        check_merged(tmp_path, shards, TASKS, 2)
    journal.write_text(lines)
    (tmp_path / "answers.rank1.jsonl").write_text(lines.splitlines()[0] + "\n")
    with pytest.raises(ReportError, match=r"1 document\(s\).*answered in two journals. The first is read/test/1"):
        check_merged(tmp_path, shards, TASKS, 2)


def test_tasks_are_noted_one_after_the_other(tmp_path):
    write_shard(tmp_path, HALVES[0], {"read": ShardTask(documents=2)})
    write_shard(tmp_path, HALVES[0], {"doc": ShardTask(documents=1)})
    assert read_shards(tmp_path)[HALVES[0]].keys() == {"read", "doc"}
