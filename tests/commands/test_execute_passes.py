"""Several runs in one process: who is finished, who is tried again, and how it is told."""

from functools import partial

import pytest
import yaml

from vico_eval.commands.work.execute import log_path
from vico_eval.commands.work.failures import describe

from .fakes import BAR, DOC, READ, FakeProcess, World, failed, go, make_run

BOTH = (READ, DOC)


@pytest.fixture
def planned(tmp_path):
    return partial(make_run, tmp_path)


def share(world, runs, **options):
    return go(world, runs, shared=True, **options)


def test_runs_of_the_same_weights_share_a_process(planned, tmp_path):
    world = World()
    runs = [planned("vanilla", cells=BOTH), planned("fastv", cells=BOTH), planned("vico", cells=BOTH, pretrained="v")]
    assert share(world, runs) == [
        *("start vanilla+1 read doc", "done vanilla", "done fastv"),
        *("start vico read doc", "done vico"),
    ]
    assert world.together == [["vanilla", "fastv"], ["vico"]]
    entries = yaml.safe_load((tmp_path / "passes" / "vanilla+1.yaml").read_text())
    assert [entry["model"] for entry in entries] == ["vanilla", "fastv"]
    assert (tmp_path / "vanilla+1.log").exists()
    assert share(World(), runs) == ["kept vanilla", "kept fastv", "kept vico"]


def test_a_pass_is_one_of_the_processes_at_once(planned):
    world = World()
    share(world, [planned(name, pretrained=name[0]) for name in ("a1", "a2", "b1", "b2", "c")], jobs=2)
    assert world.most_alive == 2


def test_a_pass_starts_when_all_that_its_rows_draw_on_is_finished(planned):
    runs = [planned("vico", pretrained="v"), planned("vanilla"), planned("fastv", after="vico")]
    assert share(World(), runs) == [
        *("start vico read", "done vico"),
        *("start vanilla+1 read", "done vanilla", "done fastv"),
    ]


def test_a_pass_of_rows_that_draw_on_several_runs_waits_for_each(planned):
    runs = [planned("vico", pretrained="v"), planned("other", pretrained="w", cells=(READ, DOC, BAR))]
    runs += [planned("pool", after="vico"), planned("fastv", after="other")]
    events = share(World(broken={("other", "doc"): "no such data set"}), runs, jobs=2)
    assert events.index("done vico") < events.index("failed other")
    assert events[events.index("failed other") + 1 :] == ["start pool+1 read", "done pool", "done fastv"]


@pytest.mark.parametrize(
    ("jobs", "events"),
    [
        (1, ["start vico+1 read", "done vico", "done all", "start random-seed0+1 read"]),
        (2, ["start vico read", "done vico", "start all+2 read", "done all"]),
    ],
)
def test_a_row_that_draws_on_one_of_the_pass_goes_with_the_next(planned, jobs, events):
    runs = [
        planned("vico"),
        planned("all"),
        planned("random-seed0", after="vico"),
        planned("random-seed1", after="vico"),
    ]
    assert share(World(), runs, jobs=jobs) == [*events, "done random-seed0", "done random-seed1"]


def test_a_row_that_fails_in_a_pass_is_tried_alone_then_cell_by_cell(planned):
    world = World(broken={("fastv", "doc"): "no such data set"})
    runs = [planned("vanilla", cells=(READ, DOC, BAR)), planned("fastv", cells=(READ, DOC, BAR))]
    assert share(world, runs) == [
        *("start vanilla+1 read doc bar", "parted fastv from vanilla+1", "done vanilla"),
        *("start fastv read doc bar", "start fastv read", "start fastv doc", "start fastv bar", "failed fastv"),
    ]
    assert failed(world) == [("fastv", "Doc", "no such data set")]
    text = describe(world.failures)
    assert text.startswith("fastv on Doc: no such data set\n")
    assert f"Log: {log_path(runs[1], 3)}" in text
    assert "lmms_eval --device cpu --model fastv " in text
    assert "shared_pass" not in text


@pytest.mark.parametrize("is_shared", [True, False])
def test_a_run_of_its_own_is_a_pass_unless_it_is_tried_again(planned, is_shared):
    world = World(broken={("a", "doc"): "no such data set"})
    (run,) = runs = [planned("a", cells=BOTH)]
    go(world, runs, shared=is_shared)
    first, *again = world.commands
    assert ("--config" in first) == is_shared
    assert first == run.command(BOTH) or is_shared
    assert again == [run.command([cell]) for cell in BOTH]
    assert f"Log: {log_path(run, 3)}" in describe(world.failures)


def test_a_pass_that_is_killed_leaves_what_is_finished_and_each_run_goes_on_alone(planned):
    world = World(entries_before_death={"a+2": 1})
    runs = [planned(name, cells=BOTH) for name in "abc"]
    assert share(world, runs) == [
        *("start a+2 read doc", "parted b from a+2", "parted c from a+2", "done a"),
        *("start b read doc", "done b", "start c read doc", "done c"),
    ]
    assert world.failures == []


def test_documents_that_failed_in_a_pass_are_final_and_not_asked_again_at_once(planned):
    world = World(bad_documents={("fastv", "doc"): "2 of 9 documents have no answer"})
    runs = [planned("vanilla", cells=BOTH), planned("fastv", cells=BOTH)]
    assert share(world, runs) == ["start vanilla+1 read doc", "done vanilla", "failed fastv"]
    assert failed(world) == [("fastv", "Doc", "2 of 9 documents have no answer")]
    assert f"Log: {runs[0].folder.parent / 'vanilla+1.log'}" in describe(world.failures)
    assert share(World(), runs) == ["kept vanilla", "start fastv doc", "done fastv"]


def test_nor_where_the_process_dies_after_their_run_was_scored(planned):
    world = World(bad_documents={("a", "read"): "1 of 9 documents have no answer"}, entries_before_death={"a+1": 1})
    assert share(world, [planned("a"), planned("b")]) == [
        *("start a+1 read", "parted b from a+1", "failed a"),
        *("start b read", "done b"),
    ]


def test_results_that_were_there_before_are_not_the_pass_s(planned):
    runs = [planned("a"), planned("b")]
    share(World(bad_documents={(name, "read"): "1 of 9 documents have no answer" for name in "ab"}), runs)
    world = World(entries_before_death={"a+1": 0})
    assert share(world, runs) == [
        *("start a+1 read", "parted a from a+1", "parted b from a+1"),
        *("start a read", "done a", "start b read", "done b"),
    ]


def test_where_the_source_of_some_rows_has_failed_cells_the_others_do_not_suffer(planned):
    runs = [planned("vico", pretrained="v", cells=BOTH), planned("vanilla", cells=BOTH)]
    runs += [planned(name, after="vico", cells=BOTH) for name in ("pool", "fastv")]
    world = World(broken={("vico", "doc"): "no such data set"})
    events = share(world, runs)
    assert events[events.index("failed vico") + 1 :] == [
        *("start vanilla read doc", "done vanilla"),
        *("start pool+1 read", "failed pool", "failed fastv"),
    ]
    drawn = "it needs the result of vico on Doc, which is incomplete."
    assert failed(world)[1:] == [("pool", "Doc", drawn), ("fastv", "Doc", drawn)]


def test_rows_without_any_source_are_not_started(planned):
    runs = [planned("vico", pretrained="v"), planned("vanilla"), planned("pool", after="vico")]
    world = World(broken={("vico", "read"): "no such data set"})
    assert share(world, runs) == [
        *("start vico read", "failed vico"),
        *("start vanilla read", "failed pool", "done vanilla"),
    ]


def test_a_finished_run_of_which_a_pass_made_cells_stale_answers_them_alone(planned):
    # FastV's ratio is ViCO's over all benchmarks: a further one changes it, and with it the record of the run.
    runs = [planned("fastv", cells=BOTH), planned("pool", cells=BOTH)]
    share(World(), [planned("fastv"), planned("pool")])

    class Renewing(FakeProcess):
        def answer(self, folder, tasks):
            if tasks == ["doc"]:
                (folder / "Read").unlink()
            super().answer(folder, tasks)

    world = World()
    world.process = Renewing
    assert share(world, runs) == [
        "start fastv+1 doc",
        *("start fastv read", "done fastv", "start pool read", "done pool"),
    ]


def test_runs_that_are_done_are_told_though_others_of_their_pass_wait_for_a_place(planned):
    world = World(broken={("a", "read"): "no"})
    runs = [planned(name) for name in "abc"]
    assert share(world, runs)[:5] == ["start a+2 read", "parted a from a+2", "done b", "done c", "start a read"]


def test_stopping_the_command_stops_a_pass(planned):
    world = World()
    world.advanced = lambda run, documents: (_ for _ in ()).throw(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        share(world, [planned("a"), planned("b")])
    assert world.events == ["start a+1 read", "stop a+1", "end a+1"]


def test_the_answers_of_every_run_of_a_pass_are_counted(planned):
    world, counts = World(), {}
    world.advanced = lambda run, documents: counts.__setitem__(run.name, documents)

    class Journaling(FakeProcess):
        def poll(self):
            for number, (folder, _) in enumerate(self.entries):
                (folder / "answers.rank0.jsonl").write_text("{}\n" * (number + 1))
            return super().poll()

    world.process = Journaling
    share(world, [planned("a"), planned("b")])
    assert counts == {"a": 1, "b": 2}
