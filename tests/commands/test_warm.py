"""Passes in processes that start with lmms-eval loaded, and which passes do."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import yaml

from vico_eval.commands.work.passes import plan_passes
from vico_eval.commands.work.starting import LONE, starting
from vico_eval.commands.work.warm import LOST, WarmStart
from vico_eval.paths import tasks_dir
from vico_eval.runs.read import read_run

from .fakes import make_run

ENVIRONMENT = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
SLEEPS = (sys.executable, "-c", "import time; time.sleep(600)")
ENDS = (sys.executable, "-c", "")


def ended(process, limit_s=300):
    """Its exit status."""
    until = time.monotonic() + limit_s
    while (status := process.poll()) is None:
        assert time.monotonic() < until
        time.sleep(0.05)
    return status


def write_pass(folder: Path, checkpoint: Path, *, limit: int) -> Path:
    run = folder / "run"
    entry = {
        "model": "vanilla_internvl",
        "model_args": f"pretrained={checkpoint},record_dir={run},resume=True,previews=False",
        "include_path": str(tasks_dir()),
        "tasks": "tiny_read",
        "output_path": str(run),
        "log_samples": True,
        "limit": limit,
        "device": "cpu",
    }
    file = folder / "pass.yaml"
    file.write_text(yaml.safe_dump([entry]))
    return file


def test_passes_run_beside_each_other_each_with_its_log_and_status(untrained, tmp_path):
    for name in ("good", "long"):
        (tmp_path / name).mkdir()
    good = write_pass(tmp_path / "good", untrained / "vico", limit=2)
    long = write_pass(tmp_path / "long", untrained / "vico", limit=170)
    with WarmStart(ENVIRONMENT) as warm:
        processes = [
            warm.start(["the", "same as", "this"], config, tmp_path / f"{config.parent.name}.log")
            for config in (good, long, tmp_path / "missing" / "pass.yaml")
        ]
        assert processes[0].poll() is None
        assert ended(processes[2]) == 1
        assert ended(processes[0]) == 0
        processes[1].stop()
        processes[1].end()
        assert ended(processes[1]) == -signal.SIGTERM
        assert warm.is_alive
    assert len(read_run(tmp_path / "good" / "run").tasks["tiny_read"].documents) == 2
    log = (tmp_path / "good.log").read_text()
    assert log.startswith("$ the 'same as' this\n\n")
    assert "Loading weights: 100%" in log
    log = (tmp_path / "missing.log").read_text()
    assert "can't be read" in log
    assert "Traceback" not in log
    assert not list((tmp_path / "long").rglob("*_results.json"))


def test_a_pass_is_lost_with_what_would_start_it(tmp_path):
    with WarmStart({}, ENDS) as warm:
        until = time.monotonic() + 60
        while warm.is_alive:
            assert time.monotonic() < until
        assert ended(warm.start(["a"], tmp_path / "pass.yaml", tmp_path / "a.log")) == LOST


def test_passes_that_wait_are_stopped_too(tmp_path):
    with WarmStart({}, SLEEPS) as warm:
        processes = [warm.start(["a"], tmp_path / "pass.yaml", tmp_path / f"{name}.log") for name in "ab"]
        assert processes[0].poll() is None
        for process in processes:
            process.stop()
        for process in processes:
            process.end()
        assert [process.poll() for process in processes] == [LOST, LOST]


STARTS_ONE = """
import json, subprocess, sys, time
number = json.loads(sys.stdin.readline())["number"]
started = subprocess.Popen(["sleep", "600"], start_new_session=True, stdout=subprocess.DEVNULL)
print(json.dumps({"number": number, "pid": started.pid, "status": None}), flush=True)
time.sleep(600)
"""


def is_running(pid):
    """Whether it has not ended; one that nobody has waited for has."""
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(condition, limit_s=60):
    until = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_passes_end_with_what_has_started_them(tmp_path):
    with WarmStart({}, (sys.executable, "-c", STARTS_ONE)) as warm:
        process = warm.start(["a"], tmp_path / "pass.yaml", tmp_path / "a.log")
        wait_until(lambda: warm._pids)
        (pid,) = warm._pids.values()
        assert is_running(pid)
        assert process.poll() is None
        warm._server.kill()
        assert ended(process) == LOST
        wait_until(lambda: not is_running(pid))


TELLS_NOBODY = """
import io, os, signal, sys, time
from vico_eval.harnesses.lmms_eval.warm import fork

class Killed(io.StringIO):
    def write(self, text):
        if sys.argv[2] == "killed":
            os.kill(os.getpid(), signal.SIGKILL)

pid = fork(Killed(), 1)
if pid == 0:
    assert os.getpgrp() == os.getpid()
    open(sys.argv[1], "w").close()
else:
    os.waitpid(pid, 0)
"""


def test_a_copy_that_nobody_was_told_of_does_nothing(tmp_path):
    """What would tell is killed between the two; the end of what both write to shows that both have ended."""
    for word in ("killed", "told"):
        words = [sys.executable, "-c", TELLS_NOBODY, str(tmp_path / word), word]
        done = subprocess.run(words, capture_output=True, check=False, timeout=60)
        assert done.returncode == (-signal.SIGKILL if word == "killed" else 0), done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["told"]


@pytest.fixture
def started(monkeypatch):
    """What is started, in which way."""
    found = []

    class Warm(WarmStart):
        def __init__(self, environment):
            super().__init__(environment, SLEEPS)
            self.environment = environment
            found.append(self)

        def start(self, command, config, log):
            found.append(("warm", config))

    monkeypatch.setattr("vico_eval.commands.work.starting.WarmStart", Warm)
    monkeypatch.setattr(
        "vico_eval.commands.work.starting.Subprocess", lambda command, *_: found.append(("cold", command))
    )
    return found


def passes_of(folder, *names, launcher=LONE, shared=True):
    make = partial(make_run, folder)
    runs = [
        replace(make(name, pretrained=name), launcher=launcher, environment={"ACCELERATE_USE_CPU": "true"})
        for name in names
    ]
    return plan_passes(runs, {run.name: run.cells for run in runs}, jobs=1, shared=shared)


def test_several_passes_of_lone_processes_start_warm_and_what_is_tried_again_does_not(started, tmp_path):
    passes = passes_of(tmp_path, "a", "b")
    with starting(passes, {"OMP_NUM_THREADS": "2"}) as start:
        (warm,) = started
        assert warm.environment == {"OMP_NUM_THREADS": "2", "ACCELERATE_USE_CPU": "true"}
        run = passes[0].runs[0]
        start(run, passes[0].command, tmp_path / "a.log")
        start(run, run.command(run.cells), tmp_path / "a.log")
        assert started[1:] == [("warm", passes[0].file), ("cold", run.command(run.cells))]
    assert not warm.is_alive


def test_what_is_gone_starts_nothing(started, tmp_path):
    passes = passes_of(tmp_path, "a", "b")
    with starting(passes, {}) as start:
        os.killpg(started[0]._server.pid, signal.SIGKILL)
        started[0]._server.wait()
        start(passes[0].runs[0], passes[0].command, tmp_path / "a.log")
    assert started[1:] == [("cold", passes[0].command)]


@pytest.mark.parametrize(
    ("names", "options"),
    [
        ("", {}),
        ("a", {}),
        ("ab", {"shared": False}),
        ("ab", {"launcher": (sys.executable, "-m", "torch.distributed.run", "-m")}),
    ],
    ids=["nothing to do", "one pass", "rows by themselves", "several processes"],
)
def test_where_nothing_is_saved_lmms_eval_is_not_loaded(started, tmp_path, names, options):
    passes = passes_of(tmp_path, *names, **options)
    with starting(passes, {}) as start:
        for one in passes:
            start(one.runs[0], one.command, tmp_path / "a.log")
    assert [way for way, _ in started] == ["cold" for _ in passes]
