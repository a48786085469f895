"""The orchestration with processes that only pretend: what starts, in which order, what is kept, what fails."""

import os
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from vico_eval.commands.work.execute import log_path
from vico_eval.commands.work.failures import by_hand, describe
from vico_eval.commands.work.processes import Subprocess, stop_all
from vico_eval.commands.work.run_folders import problems_of, unfinished
from vico_eval.runs.follow import AnswerCount

from .fakes import BAR, DOC, READ, FakeProcess, World, check, failed, go, make_run, read


@pytest.fixture
def planned(tmp_path):
    return partial(make_run, tmp_path)


def test_a_run_that_waits_for_another_starts_after_it_even_with_a_free_place(planned):
    events = go(World(), [planned("random", after="vico"), planned("vico")], jobs=2)
    assert events == ["start vico read", "done vico", "start random read", "done random"]


@pytest.mark.parametrize("jobs", [1, 2, 3])
def test_no_more_runs_at_once_than_asked(planned, jobs):
    world = World()
    go(world, [planned(name) for name in "abcde"], jobs=jobs)
    assert world.most_alive == jobs


def test_a_runs_cells_share_a_process(planned):
    assert go(World(), [planned("vico", cells=(READ, DOC))]) == ["start vico read doc", "done vico"]


def test_finished_cells_are_kept(planned):
    runs = [planned("vico", cells=(READ, DOC)), planned("random", after="vico")]
    go(World(), runs)
    assert go(World(), runs) == ["kept vico", "kept random"]
    (runs[0].folder / "Doc").unlink()
    assert go(World(), runs) == ["start vico doc", "done vico", "kept random"]


def test_a_run_is_read_once_for_all_its_cells(planned):
    run = planned("vico", cells=(READ, DOC, BAR))
    go(World(), [run])
    asked = []

    def counting(folder, cells):
        asked.append(cells)
        check(folder, cells)

    assert problems_of(run, run.cells, counting) == []
    assert asked == [run.cells]
    (run.folder / "Doc").unlink()
    ((cell, problem),) = problems_of(run, run.cells, counting)
    assert (cell, str(problem)) == (DOC, "vico has no results of Doc.")
    asked.clear()
    assert [cell for cell, _ in problems_of(run, [DOC], counting)] == [DOC]
    assert asked == [[DOC]]


def test_further_cells_join_those_of_a_finished_run(planned):
    go(World(), [planned("vico")])
    assert go(World(), [planned("vico", cells=(READ, DOC))]) == ["start vico doc", "done vico"]


def test_fresh_repeats_what_is_finished_and_sets_the_old_answers_aside(planned):
    run = planned("vico")
    go(World(), [run])
    (run.folder / "answers").write_text("of hours")
    assert go(World(), [run], fresh=True) == [
        "set aside vico since fresh answers were asked for",
        *("start vico read", "done vico"),
    ]
    assert not (run.folder / "answers").exists()
    assert (run.folder.parent / "old" / "vico.1" / "answers").read_text() == "of hours"


def test_other_inputs_or_another_command_repeat_a_run(planned):
    run = planned("vico")
    go(World(), [run])
    changed = read(weights="y")
    assert unfinished(run, changed, check) == ("checkpoints have changed: vico-tiny", run.cells)
    newer = read(version="1.1")
    assert unfinished(run, newer, check) == ("versions have changed: vico_eval was 1.0 and is 1.1", run.cells)
    assert go(World(), [run], inputs=changed)[1:] == ["start vico read", "done vico"]
    other = replace(run, arguments=(*run.arguments, "--limit", "1"))
    assert go(World(), [other], inputs=changed)[:2] == [
        "set aside vico since its arguments differ",
        "start vico read",
    ]
    assert go(World(), [other], inputs=read(weights="y", tasks="y"))[0].endswith("since the tasks of Read have changed")
    assert len(list(run.folder.parent.glob("old/vico.*"))) == 3
    moved = replace(other, launcher=("torchrun",))
    assert go(World(), [moved], inputs=read(weights="y", tasks="y")) == ["kept vico"]
    for broken in (b"{", b"", b"\xff", b"[]", b'{"arguments": [], "inputs": "", "cells": []}'):
        (run.folder / "request.json").write_bytes(broken)
        assert unfinished(moved, changed, check)[0] == "nobody knows what it is of"


def test_a_folder_that_is_not_there_is_not_stale(planned):
    assert unfinished(planned("vico"), read(), check) == (None, (READ,))


def test_where_one_cell_fails_the_others_are_finished_alone(planned):
    world = World(broken={("vico", "doc"): "no such data set"})
    events = go(world, [planned("vico", cells=(READ, DOC, BAR)), planned("vanilla")])
    assert events == [
        "start vico read doc bar",
        *("start vico read", "start vico doc", "start vico bar"),
        "failed vico",
        *("start vanilla read", "done vanilla"),
    ]
    assert failed(world) == [("vico", "Doc", "no such data set")]


def test_a_reason_that_is_no_cells_own_is_not_asked_for_again_and_again(planned):
    world = World(broken={("vico", task): "no checkpoint" for task in ("read", "doc", "bar")})
    events = go(world, [planned("vico", cells=(READ, DOC, BAR))])
    assert events == ["start vico read doc bar", "start vico read", "start vico doc", "failed vico"]
    assert failed(world) == [("vico", name, "no checkpoint") for name in ("Read", "Doc", "Bar")]


def test_cells_that_the_answers_of_others_made_stale_are_answered_again(planned):
    # FastV's ratio is ViCO's over all benchmarks: a further one changes it, and with it the record of the run.
    run = planned("fastv", cells=(READ, DOC))
    go(World(), [planned("fastv")])
    world = World()

    def launch(run, command, log):
        if command[-1] == "doc":
            (run.folder / "Read").unlink()
        return World.launch(world, run, command, log)

    world.launch = launch
    assert go(world, [run]) == ["start fastv doc", "start fastv read", "done fastv"]


def test_a_crash_does_not_hide_behind_documents_that_failed_before(planned):
    run = planned("vico", cells=(READ, DOC))
    go(World(bad_documents={("vico", "read"): "1 of 9 documents has no answer"}, broken={("vico", "doc"): "no"}), [run])
    world = World(broken={("vico", "doc"): "no"})
    assert go(world, [run]) == ["start vico read doc", "start vico read", "start vico doc", "failed vico"]
    assert failed(world) == [("vico", "Doc", "no")]


def test_what_draws_on_a_failed_cell_goes_without_it(planned):
    world = World(broken={("vico", "doc"): "no such data set"})
    both = (READ, DOC)
    events = go(world, [planned("vico", cells=both), planned("random", after="vico", cells=both)])
    assert events[-2:] == ["start random read", "failed random"]
    assert failed(world)[1:] == [("random", "Doc", "it needs the result of vico on Doc, which is incomplete.")]


def test_a_cell_with_documents_that_failed_is_not_repeated_at_once_but_by_the_next_command(planned):
    world = World(bad_documents={("vico", "doc"): "2 of 9 documents have no answer"})
    run = planned("vico", cells=(READ, DOC))
    assert go(world, [run]) == ["start vico read doc", "failed vico"]
    assert failed(world) == [("vico", "Doc", "2 of 9 documents have no answer")]
    assert go(World(), [run]) == ["start vico doc", "done vico"]


def test_a_status_says_something_where_lmms_eval_does_not(planned):
    world = World(status=1)
    world.process = Silent
    go(world, [planned("vico")])
    ((_, _, reason),) = failed(world)
    assert "lmms-eval exited with status 1; the end of its log:\n  loading\n  the reason" in reason


class Silent(FakeProcess):
    """Ends without results and without a word."""

    def poll(self):
        self.polls += 1
        return None if self.polls < 2 else self.world.status


def test_status_0_without_results_is_a_failure_too(planned):
    world = World()
    world.process = Silent
    go(world, [planned("vico")])
    assert failed(world) == [("vico", "Read", "vico has no results of Read.")]


def test_crashes_of_one_kind_are_not_asked_for_again_and_again(planned):
    world = World(status=-9)
    world.process = Silent
    go(world, [planned("vico", cells=(READ, DOC, BAR))])
    assert world.events == ["start vico read doc bar", "start vico read", "start vico doc", "failed vico"]
    assert describe(world.failures).count("the end of its log") == 1


def test_failures_are_told_with_log_and_command(planned):
    world = World(broken={("vico", "doc"): "no data", ("vico", "bar"): "no data"})
    run = replace(planned("vico", cells=(READ, DOC, BAR)), environment={"COLOUR": "light blue"})
    go(world, [run])
    text = describe(world.failures)
    assert text.startswith("vico on Doc, Bar: no data\n")
    assert f"Log: {log_path(run, 3)}" in text  # the third process of the command: Read, and Doc before Bar
    assert log_path(run, 3).read_text()
    assert "To repeat it alone: COLOUR='light blue' lmms_eval --device cpu --model vico " in text
    assert text.endswith(" --tasks doc,bar")
    assert by_hand(run, run.command([READ])).endswith("--tasks read")


def test_stopping_the_command_stops_what_it_started(planned):
    world = World()
    world.advanced = lambda run, documents: (_ for _ in ()).throw(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        go(world, [planned("vico")])
    assert world.events == ["start vico read", "stop vico", "end vico"]


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
    stop_all([process])
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
    command, _, output = log.read_text().partition("\n\n")
    assert command.startswith(f"$ {sys.executable} -c ")
    assert (status, output) == (0, "blue\n")


def test_documents_are_counted_over_all_processes(tmp_path):
    answered = AnswerCount(tmp_path)
    assert answered.count() == 0
    first = tmp_path / "answers.rank0.jsonl"
    first.write_text("{}\n{}\n{")
    (tmp_path / "answers.rank1.jsonl").write_text("\n{}\n")  # the blank line of a continued run
    assert answered.count() == 3
    with first.open("a") as file:
        file.write("}\n{}\n")
    assert answered.count() == 5
    assert answered.count() == 5
    first.write_text("{}\n")  # lines were taken out of one file
    assert answered.count() == 2
