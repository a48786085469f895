"""A table that separate commands fill, one of them killed: real lmms-eval processes on the built-in models."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from vico_eval.runs.holding import hold
from vico_eval.runs.shards import Shard, read_shards

from .test_run_killed import COMMAND, answers, descendants

TABLE = Path("runs") / "tiny-limit6"
ROWS = ("vanilla", "vico", "all_compress")
ASKED = (
    *("run", "tiny", "--rows", "vico,all_compress", "--benchmark", "tiny_read,tiny_doc", "--limit", "6"),
    *("--batch-size", "2", "--device", "cpu", "--jobs", "1"),
)


def test_shards_of_which_one_is_killed_equal_the_unsharded_table(run, only_tasks_of, tmp_path, monkeypatch):
    parts, whole = tmp_path / "parts", tmp_path / "whole"
    parts.mkdir(), whole.mkdir()
    kill_in_the_middle([*COMMAND, *ASKED, "--shard", "1/2"], parts, "vico/answers.rank0.shard1of2.jsonl")
    journal = parts / TABLE / "vico" / "answers.rank0.shard1of2.jsonl"
    # A count that no model gives shows that the answer was taken over.
    journal.write_text(journal.read_text().replace('"generated_tokens": ', '"generated_tokens": 1000', 1))
    only_tasks_of()

    monkeypatch.chdir(parts)
    status, out, err = run(*ASKED, "--shard", "2/2")
    assert status == 0, err
    assert "Incomplete: vanilla, all_compress, vico; missing shards 1/2." in " ".join(err.split())
    assert not out
    assert not list(parts.rglob("*_results.json"))
    status, out, err = run(*ASKED, "--shard", "1/2")
    assert status == 0, err
    assert "All shards of vanilla, all_compress, vico are complete." in " ".join(err.split())
    assert "ViCO" in out
    assert (TABLE / "all_compress+1.shard2of2.log").exists()  # rows of the same weights shared a pass
    for log in ("vanilla.log", "all_compress+1.log"):
        assert "12 of 12 answers are there already" in (TABLE / log).read_text()

    monkeypatch.chdir(whole)
    status, _, err = run(*ASKED)
    assert status == 0, err
    for row in ROWS:
        found, expected = answers(parts / TABLE / row), answers(whole / TABLE / row)
        assert len(expected) == 12
        marked = [key for key, (_, counts, _) in found.items() if counts[0]["account"]["generated_tokens"] > 1000]
        assert len(marked) == (row == "vico")
        for key in marked:
            assert found.pop(key)[0] == expected.pop(key)[0]
        assert found == expected
        done = read_shards(parts / TABLE / row)
        assert {task.documents for tasks in done.values() for task in tasks.values()} == {3}
    tables = [(folder / TABLE / "report" / "table3.md").read_text() for folder in (parts, whole)]
    assert tables[0] == tables[1]


def kill_in_the_middle(command, folder, journal):
    """Start a command and kill it, with everything that it started, when its journal has two lines."""
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    path = folder / TABLE / journal
    deadline = time.monotonic() + 300
    while not (path.exists() and path.read_text().count("\n") >= 2):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.005)
    for pid in descendants(process.pid):
        os.kill(pid, signal.SIGKILL)
    process.wait()


@pytest.fixture
def in_table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    locks = tmp_path / TABLE / ".locks"
    locks.mkdir(parents=True)
    return locks


def elsewhere(lock, shard=None):
    """Has another process hold a run."""
    code = (
        "import sys; from pathlib import Path; from vico_eval.runs.holding import hold; "
        "from vico_eval.runs.shards import parse_shard; "
        "held = hold(Path(sys.argv[1]), *map(parse_shard, sys.argv[2:])); print('held', flush=True); sys.stdin.read()"
    )
    words = [COMMAND[0], "-c", code, str(lock), *([] if shard is None else [shard])]
    other = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "held\n"
    return other


@pytest.mark.parametrize(
    ("own", "theirs", "said"),
    [
        (None, None, "another command is working on vanilla in runs/tiny-limit6; wait for it"),
        (None, "1/2", "another command is working on vanilla in runs/tiny-limit6; wait for it"),
        ("1/2", "1/2", "working on vanilla in runs/tiny-limit6 as shard 1/2, or not by shards of 2"),
        ("1/2", "1/3", "working on vanilla in runs/tiny-limit6 as shard 1/2, or not by shards of 2"),
        ("1/2", None, "working on vanilla in runs/tiny-limit6 as shard 1/2, or not by shards of 2"),
    ],
)
def test_two_commands_do_not_work_on_one_run(run, in_table, own, theirs, said):
    with elsewhere(in_table / "vanilla.lock", theirs) as other:
        status, _, err = run(*ASKED, *([] if own is None else ["--shard", own]))
        other.kill()
    assert status == 1
    assert said in " ".join(err.split())
    assert not list(in_table.parent.glob("*.log"))
    hold(in_table / "vanilla.lock", None if own is None else Shard(1, 2)).release()  # it has let go of what it had


def test_a_row_that_takes_another_s_ratio_waits_and_says_so(run, in_table):
    status, _, err = run(
        "run", "tiny", "--rows", "random", "--limit", 6, "--device", "cpu", "--shard", "1/2", "--dry-run"
    )
    said = " ".join(err.split())
    assert status == 0
    assert "2 runs" in said
    assert "random-seed0 waits for vico, whose ratio it uses. Repeat this command and those of the other" in said
    assert "vico_internvl" in said
    assert "random_internvl" not in said


@pytest.mark.parametrize("option", ["--fresh", "--fixtures"])
def test_what_would_take_the_ground_from_other_shards_is_refused(run, option):
    status, _, err = run(*ASKED, "--shard", "1/2", option)
    assert status == 1
    assert f"{option} with --shard" in err
