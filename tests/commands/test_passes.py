"""Which runs share a pass, what its file says, and what the plan says of it."""

from dataclasses import replace
from functools import partial

import pytest
import yaml

from vico_eval import paths
from vico_eval.cards import Checkpoints, load_cards
from vico_eval.commands.work.dry_run import in_passes, show_plan
from vico_eval.commands.work.passes import PROGRAM, Pass, at_once, conditions_of, most_work_first, plan_passes
from vico_eval.commands.work.plan import Cell, Conditions, plan_runs

from .fakes import DOC, READ, make_run

TABLE3 = ("vanilla", "vanilla_vir", "single_tile", "downsample", "fastv", "pool", "all_compress", "random", "vico")


@pytest.fixture
def planned(tmp_path):
    return partial(make_run, tmp_path)


def passes_of(runs, *, jobs=1, left=None, **options):
    cells = {run.name: run.cells for run in runs} | (left or {})
    return plan_passes(runs, cells, jobs=jobs, **options)


def names(passes):
    return [[run.name for run in one.runs] for one in passes]


def table3(jobs=1, rows=TABLE3, **changes):
    """The passes of a real table's rows."""
    conditions = Conditions(
        **{
            "cells": (READ,),
            "include_path": paths.tasks_dir(),
            "checkpoints": Checkpoints(base="b", vico="v"),
            "batch_size": 8,
            "device": "cpu",
            "limit": 20,
            **changes,
        }
    )
    return passes_of(plan_runs(load_cards(paths.models_dir()), rows, conditions, paths.tasks_dir(), 2), jobs=jobs)


def test_rows_of_the_same_weights_share_the_fewest_passes():
    passes = table3()
    assert names(passes) == [
        ["vico", "all_compress"],
        ["vanilla", "vanilla_vir", "single_tile", "downsample", "fastv", "pool"],
        ["random-seed0", "random-seed1"],  # draws on a row of the first
    ]
    assert [one.after for one in passes] == [(), ("vico",), ("vico",)]


def test_with_several_processes_what_others_wait_for_comes_first_and_alone():
    passes = table3(jobs=2)
    assert names(passes) == [
        ["vico"],
        ["vanilla", "vanilla_vir", "single_tile"],
        ["all_compress", "random-seed0", "random-seed1"],  # of ViCO's weights; nobody waits for the first of them
        ["downsample", "fastv", "pool"],
    ]
    assert at_once(passes, 4) == 2
    assert at_once(passes, 1) == 1


def test_rows_at_a_share_of_tokens_wait_for_nobody():
    assert names(table3(jobs=2, rows=("fastv", "pyramiddrop", "dart"), budgets=(0.5,))) == [
        ["vanilla", "fastv.target_ratio-0.5", "pyramiddrop.target_ratio-0.5", "dart.target_ratio-0.5"]
    ]


def test_one_checkpoint_for_all_rows_makes_two_passes():
    first, second = table3(checkpoints=Checkpoints(base="b", vico="b"))
    assert {"vico", "vanilla", "vanilla_vir", "single_tile", "all_compress"} == {run.system for run in first.runs}
    assert {"random", "fastv", "downsample", "pool"} == {run.system for run in second.runs}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("pretrained", "other"), ("max_tiles", 4), ("dtype", "bfloat16"), ("tiles", "2x2"), ("thinking", True)),
        *(("num_frames", 8), ("attn_implementation", "eager"), ("system_prompt", "s"), ("device_map", "auto")),
        *(("total_max_tiles", 12), ("label_images", False), ("allow_pickle", True)),
    ],
)
def test_rows_that_the_engine_answers_otherwise_share_none(planned, name, value):
    assert len(passes_of([planned("a"), planned("b", **{name: value})])) == 2
    assert len(passes_of([planned("a", **{name: value}), planned("b", **{name: value})])) == 1


@pytest.mark.parametrize("options", [("--limit", "3"), ("--batch_size", "4"), ("--gen_kwargs", "temperature=1")])
def test_nor_rows_that_lmms_eval_asks_otherwise(planned, options):
    other = planned("b")
    assert len(passes_of([planned("a"), replace(other, arguments=(*other.arguments, *options))])) == 2


def test_what_is_the_method_s_or_the_row_s_keeps_none_apart(planned):
    runs = [planned("a", seed=0, layer=3, method="fastv"), planned("b", seed=1, record_dir="b", target_ratio=0.5)]
    assert len(passes_of(runs)) == 1


def test_one_process_has_room_for_one_lender_of_connector_and_router(planned):
    runs = [planned("a", flash_from="v"), planned("b"), planned("c", flash_from="w"), planned("d", flash_from="v")]
    assert names(passes_of(runs)) == [["a", "b", "d"], ["c"]]


def test_no_pass_waits_for_itself(planned):
    chain = [planned("c", after="b"), planned("b", after="a"), planned("a")]
    assert names(passes_of(chain)) == [["a"], ["b"], ["c"]]
    # Either may join the other's weights, but not both.
    crossed = [
        *(planned("a"), planned("b", pretrained="other")),
        *(planned("a2", after="b"), planned("b2", after="a", pretrained="other")),
    ]
    assert names(passes_of(crossed)) == [["a", "a2"], ["b"], ["b2"]]


def test_a_finished_run_is_in_no_pass_and_holds_nobody_up(planned):
    runs = [planned("vico"), planned("vanilla"), planned("random", after="vico")]
    assert names(passes_of(runs)) == [["vico", "vanilla"], ["random"]]
    (only,) = passes_of(runs, left={"vico": ()})
    assert [run.name for run in only.runs] == ["vanilla", "random"]
    assert only.after == ()
    # Unless it may have to be looked at anew itself.
    chain = [planned("c", after="b"), planned("b", after="a"), planned("a")]
    assert names(passes_of(chain, left={"b": ()})) == [["a"], ["c"]]
    assert passes_of(runs, left=dict.fromkeys(("vico", "vanilla", "random"), ())) == []


def test_runs_with_other_cells_left_share_none(planned):
    runs = [planned(name, cells=(READ, DOC)) for name in "abc"]
    passes = passes_of(runs, left={"b": (DOC,)})
    assert [([run.name for run in one.runs], one.cells) for one in passes] == [
        (["a", "c"], (READ, DOC)),
        (["b"], (DOC,)),
    ]


def test_rows_by_themselves_where_that_is_asked_for(planned):
    passes = passes_of([planned("a"), planned("b"), planned("c", after="a")], shared=False)
    assert names(passes) == [["a"], ["b"], ["c"]]
    assert passes[2].after == ("a",)
    assert passes[0].command == passes[0].runs[0].command([READ])


def test_the_file_says_what_the_runs_own_commands_say(tmp_path):
    one = table3()[0]
    runs = tuple(replace(run, folder=tmp_path / run.name) for run in one.runs)
    one = replace(one, runs=runs)
    one.write()
    assert one.file == tmp_path / "passes" / "vico+1.yaml"
    assert one.log == tmp_path / "vico+1.log"
    assert one.command == (*runs[0].launcher, PROGRAM, "--config", str(one.file))
    entries = yaml.safe_load(one.file.read_text())
    for entry, run in zip(entries, runs, strict=True):
        own = run.arguments[run.arguments.index("--model_args") + 1]
        assert entry == {
            "device": "cpu",
            "model": run.model,
            "model_args": f"{own},previews={run.more_args['previews']},shared_pass={one.file}",
            "include_path": str(paths.tasks_dir()),
            "batch_size": "8",
            "log_samples": True,
            "output_path": run.arguments[run.arguments.index("--output_path") + 1],
            "limit": 20.0,
            "tasks": "read",
        }
        assert "shared_pass" not in " ".join(run.command([READ]))
    assert [path.name for path in one.file.parent.iterdir()] == ["vico+1.yaml"]


def test_the_file_holds_values_of_the_types_that_lmms_eval_s_command_line_gives(tmp_path, monkeypatch):
    import lmms_eval.__main__ as program

    one = table3()[0]
    one = replace(one, runs=tuple(replace(run, folder=tmp_path / run.name) for run in one.runs))
    one.write()
    entry = yaml.safe_load(one.file.read_text())[0]
    run = one.runs[0]
    monkeypatch.setattr("sys.argv", ["lmms_eval", *run.options([READ], shared_pass=one.file)])
    read = vars(program.parse_eval_args()[1])
    assert {name: read[name] for name in entry} == entry
    assert {name: type(read[name]) for name in entry} == {name: type(value) for name, value in entry.items()}


def test_the_pass_that_decides_when_all_is_done_is_started_first(planned):
    def cell(number):
        return Cell(benchmark=f"B{number}", tasks=("t",), results=("t",), documents=number)

    runs = [
        planned("small", cells=(cell(10),)),
        planned("large", cells=(cell(50),)),
        planned("awaited", cells=(cell(5),)),
        planned("waiting", cells=(cell(60),), after="awaited"),
        planned("unknown", cells=(READ,)),
    ]
    assert names(most_work_first(passes_of(runs, jobs=2))) == [
        *(["unknown"], ["awaited"], ["waiting"], ["large"], ["small"])
    ]


def shown(runs, passes, capsys, **options):
    show_plan(runs, {run.name: (None, run.cells) for run in runs}, passes, **options)
    return capsys.readouterr().err


def test_the_plan_says_who_shares_what_and_why_others_do_not(planned, capsys):
    runs = [
        *(planned("vico", max_tiles=12), planned("all", max_tiles=12), planned("coarse", max_tiles=4)),
        *(planned("half", max_tiles=12, dtype="bfloat16"), planned("random", after="vico", max_tiles=12)),
        planned("done"),
    ]
    text = shown(runs, passes_of(runs, left={"done": ()}), capsys)
    assert text.startswith("6 runs, 5 of them to do in 4 passes; 5 of 6 cells to do.\n")
    assert f"pass vico+1: vico, all\n  {PROGRAM} --config " in text
    assert "  vico (vico)\n    to do: Read\n    lmms_eval --device cpu --model vico " in text
    assert "coarse (coarse)\n  apart from vico+1: max_tiles is 4, there 12\n" in text
    assert "half (half)\n  apart from vico+1: dtype is bfloat16, there not given\n" in text
    assert "random (random), after vico\n  apart from vico+1: waits for vico, which is in it\n" in text
    assert "done (done)\n  finished: Read\n" in text


def test_the_plan_says_why_rows_that_wait_are_apart(planned, capsys):
    runs = [planned("vico", pretrained="v"), planned("vanilla"), planned("pool", after="vico")]
    runs += [planned("lent", flash_from="v"), planned("lent2", flash_from="w"), planned("fastv", after="vico")]
    text = shown(runs, passes_of(runs, jobs=2), capsys)
    assert "pass vanilla+1: vanilla, lent\n  apart from vico: checkpoint is base, there v\n" in text
    assert "pass pool+1: pool, fastv, after vico\n  apart from vanilla+1: that one need not wait for vico\n" in text
    assert "lent2 (lent2)\n  apart from vanilla+1: another flash_from\n" in text


def test_where_nothing_is_shared_the_plan_speaks_of_no_pass(planned, capsys):
    runs = [planned("vico"), planned("vanilla")]
    passes = passes_of(runs, shared=False)
    assert in_passes(runs, passes) == "2 runs"
    assert "pass" not in shown(runs, passes, capsys)


def test_settings_of_the_engine_are_all_but_the_method_s(planned):
    told = conditions_of(planned("a", method="fastv", layer=2, flash_from="v", max_tiles=3))
    assert told.keys() >= {"pretrained", "max_tiles", "device", "batch_size"}
    assert not told.keys() & {"method", "layer", "flash_from", "output_path", "model", "model_args", "tasks"}


def test_a_pass_counts_the_documents_of_all_its_runs(planned):
    known = Cell(benchmark="K", tasks=("k",), results=("k",), documents=7)
    assert Pass(runs=(planned("a"), planned("b")), cells=(known,)).documents == 14
