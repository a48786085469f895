"""The demo's orchestration with processes that only pretend: what starts, in which order, what is kept, what fails."""

import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from vico_eval.commands.execute import (
    RunFailed,
    Subprocess,
    documents_answered,
    execute,
    fingerprint,
    log_path,
)
from vico_eval.commands.plan import PlannedRun
from vico_eval.errors import ReportError

RESULTS = "results"


def check(folder):
    if not (folder / RESULTS).exists():
        raise ReportError(f"{folder.name} has no results file.")


class FakeProcess:
    """Answers at its second poll."""

    def __init__(self, run, log, *, status, answers, world):
        self.run, self.status, self.answers, self.world, self.polls = run, status, answers, world, 0
        log.write_text("loading\nthe reason\n")
        world.events.append(f"start {run.name}")
        world.alive += 1
        world.most_alive = max(world.most_alive, world.alive)

    def poll(self):
        self.polls += 1
        if self.polls < 2:
            return None
        self.world.alive -= 1
        if self.answers:
            (self.run.folder / RESULTS).write_text("{}")
        return self.status

    def stop(self):
        self.world.events.append(f"stop {self.run.name}")


class World:
    """Launches fakes, hears the progress and remembers both."""

    def __init__(self, *, status=None, silent=()):
        self.events, self.alive, self.most_alive = [], 0, 0
        self.status, self.silent = status or {}, silent

    def launch(self, run, log):
        status = self.status.get(run.name, 0)
        return FakeProcess(run, log, status=status, answers=run.name not in self.silent, world=self)

    def kept(self, run):
        self.events.append(f"kept {run.name}")

    def started(self, run):
        pass

    def advanced(self, run, documents):
        pass

    def finished(self, run, seconds):
        self.events.append(f"done {run.name}")

    def failed(self, run):
        self.events.append(f"failed {run.name}")


@pytest.fixture
def planned(tmp_path):
    def make(name, after=None):
        return PlannedRun(
            name=name,
            system=name,
            title=name,
            folder=tmp_path / name,
            command=("lmms_eval", "--model", name),
            after=after,
        )

    return make


def go(world, runs, *, inputs="x", jobs=1, fresh=False):
    execute(runs, inputs=inputs, jobs=jobs, launch=world.launch, check=check, progress=world, fresh=fresh, poll_s=0.001)
    return world.events


def test_a_run_that_waits_for_another_starts_after_it_even_with_a_free_place(planned):
    events = go(World(), [planned("random", after="vico"), planned("vico")], jobs=2)
    assert events == ["start vico", "done vico", "start random", "done random"]


@pytest.mark.parametrize("jobs", [1, 2, 3])
def test_no_more_runs_at_once_than_asked(planned, jobs):
    world = World()
    go(world, [planned(name) for name in "abcde"], jobs=jobs)
    assert world.most_alive == jobs


def test_complete_runs_are_kept(planned):
    runs = [planned("vico"), planned("random", after="vico")]
    go(World(), runs)
    assert go(World(), runs) == ["kept vico", "kept random"]


def test_fresh_repeats_complete_runs(planned):
    go(World(), [planned("vico")])
    assert go(World(), [planned("vico")], fresh=True) == ["start vico", "done vico"]


def test_other_inputs_or_another_command_repeat_a_run_and_empty_its_folder(planned):
    run = planned("vico")
    go(World(), [run])
    (run.folder / "leftover").touch()
    assert go(World(), [run], inputs="y") == ["start vico", "done vico"]
    assert not (run.folder / "leftover").exists()
    other = replace(run, command=(*run.command, "--limit", "1"))
    assert go(World(), [other], inputs="y") == ["start vico", "done vico"]


def test_a_run_whose_answers_are_gone_is_repeated_and_so_is_what_drew_on_it(planned):
    runs = [planned("vico"), planned("random", after="vico")]
    go(World(), runs)
    (runs[0].folder / RESULTS).unlink()
    assert go(World(), runs) == ["start vico", "done vico", "start random", "done random"]


def test_status_0_without_answers_is_a_failure_that_shows_the_log_and_the_command(planned):
    world = World(silent=["vico"])
    with pytest.raises(RunFailed) as failure:
        go(world, [planned("vico"), planned("random", after="vico")])
    assert "Row `vico` failed: vico has no results file." in str(failure.value)
    assert "  the reason" in str(failure.value)
    assert "lmms_eval --model vico" in str(failure.value)
    assert world.events == ["start vico", "failed vico"]


def test_the_reason_is_what_lmms_eval_says_where_it_says_something(planned):
    world = World(silent=["vico"])

    def launch(run, log):
        process = World.launch(world, run, log)
        log.write_text(
            "12:00 | ERROR | Error during evaluation: no tensor\nnamed x.. Please set `--verbosity=DEBUG` to\n"
        )
        return process

    world.launch = launch
    with pytest.raises(RunFailed, match="Row `vico` failed: no tensor\nnamed x\\.\n"):
        go(world, [planned("vico")])


def test_after_a_failure_what_runs_is_finished_and_nothing_is_started(planned):
    world = World(status={"a": 1})
    with pytest.raises(RunFailed, match="ended with status 1"):
        go(world, [planned("a"), planned("b"), planned("c")], jobs=2)
    assert world.events == ["start a", "start b", "failed a", "done b"]


def test_stopping_the_command_stops_what_it_started(planned):
    world = World()
    world.advanced = lambda run, documents: (_ for _ in ()).throw(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        go(world, [planned("vico")])
    assert world.events == ["start vico", "stop vico"]


def test_stopping_ends_the_children_of_the_launcher_too(tmp_path):
    child = "import os, pathlib, time; pathlib.Path('pid').write_text(str(os.getpid())); time.sleep(60)"
    launcher = (
        f"import os, subprocess, sys; os.chdir({str(tmp_path)!r}); subprocess.run([sys.executable, '-c', {child!r}])"
    )
    process = Subprocess([sys.executable, "-c", launcher], tmp_path / "log", {})
    pid_file = tmp_path / "pid"
    deadline = time.monotonic() + 20
    while not (pid_file.exists() and pid_file.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.stop()
    pid = int(pid_file.read_text())
    while _is_running(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _is_running(pid):
    try:
        os.kill(pid, 0)
        # A zombie that nobody has reaped yet has ended.
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_environment_and_output_reach_the_process_and_its_log(tmp_path):
    log = tmp_path / "log"
    process = Subprocess([sys.executable, "-c", "import os; print(os.environ['COLOUR'])"], log, {"COLOUR": "blue"})
    deadline = time.monotonic() + 20
    while (status := process.poll()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert (status, log.read_text()) == (0, "blue\n")


def test_documents_are_counted_over_all_processes(tmp_path):
    (tmp_path / "accounts.rank0.jsonl").write_text("{}\n{}\n")
    (tmp_path / "accounts.rank1.jsonl").write_text("{}\n")
    assert documents_answered(tmp_path) == 3
    assert documents_answered(tmp_path / "missing") == 0


def test_the_log_stands_beside_the_folder_that_each_start_empties(planned):
    run = planned("vico")
    assert log_path(run).parent == run.folder.parent


def test_the_fingerprint_sees_names_and_bytes_but_no_caches(tmp_path):
    (tmp_path / "a.py").write_text("1")
    before = fingerprint([tmp_path])
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "a.pyc").write_text("2")
    assert fingerprint([tmp_path]) == before
    (tmp_path / "a.py").write_text("2")
    changed = fingerprint([tmp_path])
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    assert len({before, changed, fingerprint([tmp_path])}) == 3
