from pathlib import Path

import pytest

from vico_eval import paths
from vico_eval.commands.cards import Checkpoints, load_cards
from vico_eval.commands.plan import Benchmark, plan_runs
from vico_eval.errors import ConfigError

CARDS = load_cards(paths.models_dir())
RUNS = Path("runs/tiny")


def benchmark(**changes):
    settings = {
        "tasks": ("tiny",),
        "include_path": Path("tasks"),
        "checkpoints": Checkpoints(base="b", vico="v"),
        "batch_size": 8,
        "device": "cpu",
    }
    return Benchmark(**{**settings, **changes})


def model_args(run):
    return run.command[run.command.index("--model_args") + 1]


def by_name(rows=(), num_seeds=None, **changes):
    return {run.name: run for run in plan_runs(CARDS, rows, benchmark(**changes), RUNS, num_seeds)}


def test_all_rows_are_planned_with_one_run_a_seed():
    assert sorted(by_name()) == [
        *("all_compress", "downsample", "fastv", "image_vir", "pool", "random-seed0", "random-seed1", "random-seed2"),
        *("single_tile", "sparsevlm", "vanilla", "vanilla_vir", "vico"),
    ]


def test_internvl_x_has_a_table_of_its_own_whose_first_row_counts_as_100_percent():
    cards = load_cards(paths.models_dir(), "internvl-x")
    own = Checkpoints(base="b", pvtc="p", lvtc="l", full="f")
    runs = plan_runs(cards, (), benchmark(checkpoints=own), Path("runs/x"))
    asked = [(run.title, run.command[run.command.index("--model") + 1], model_args(run)) for run in runs]
    assert asked == [
        ("Base", "vanilla_internvl", "pretrained=b,record_dir=runs/x/internvl_x_base"),
        ("RVTC", "internvl_x", "pretrained=b,variant=rvtc,record_dir=runs/x/internvl_x_rvtc"),
        ("PVTC", "internvl_x", "pretrained=p,variant=pvtc,record_dir=runs/x/internvl_x_pvtc"),
        ("LVTC", "internvl_x", "pretrained=l,variant=lvtc,record_dir=runs/x/internvl_x_lvtc"),
        ("Full", "internvl_x", "pretrained=f,variant=full,record_dir=runs/x/internvl_x_full"),
    ]
    only = plan_runs(cards, ["internvl_x_lvtc"], benchmark(checkpoints=own), Path("runs/x"))
    assert [run.title for run in only] == ["Base", "LVTC"]


def test_a_row_without_a_checkpoint_of_its_kind_is_refused():
    cards = load_cards(paths.models_dir(), "internvl-x")
    with pytest.raises(ConfigError, match="no `pvtc` checkpoint beside b"):
        plan_runs(cards, ["internvl_x_pvtc"], benchmark(), Path("runs/x"))


def test_vico_starts_first_since_random_waits_for_its_ratios():
    runs = plan_runs(CARDS, (), benchmark(), RUNS)
    assert runs[0].name == "vico"
    waiting = {"random", "pool", "downsample", "fastv", "sparsevlm"}
    assert {run.system for run in runs if run.after == "vico"} == waiting


def test_each_row_gets_its_checkpoint_and_arguments():
    runs = by_name()
    assert model_args(runs["vanilla"]) == "pretrained=b,record_dir=runs/tiny/vanilla"
    assert model_args(runs["vanilla_vir"]) == "pretrained=b,flash_from=v,record_dir=runs/tiny/vanilla_vir"
    assert model_args(runs["random-seed1"]) == (
        "pretrained=v,ratio_from=runs/tiny/vico,seed=1,record_dir=runs/tiny/random-seed1"
    )


def test_checkpoints_may_ask_for_arguments_of_their_own():
    shallow = Checkpoints(base="b", vico="v", model_args={"fastv": {"layer": 1}})
    runs = by_name(checkpoints=shallow)
    assert model_args(runs["fastv"]) == "pretrained=b,ratio_from=runs/tiny/vico,layer=1,record_dir=runs/tiny/fastv"
    assert "layer" not in model_args(runs["sparsevlm"])


def test_a_row_brings_the_baseline_and_what_it_draws_on():
    assert sorted(by_name(["random"], num_seeds=1)) == ["random-seed0", "vanilla", "vico"]


def test_the_limit_reaches_lmms_eval_only_where_there_is_one():
    assert by_name(limit=20)["vico"].command[-2:] == ("--limit", "20")
    assert "--limit" not in by_name()["vico"].command


def test_a_gpu_run_is_not_told_to_use_the_cpu():
    assert "--cpu" not in by_name(device="cuda")["vico"].command


@pytest.mark.parametrize("folder", ["runs/a,b", "runs/lr=1"])
def test_a_folder_that_argument_strings_cannot_hold_is_refused(folder):
    with pytest.raises(ConfigError, match="comma or an equals sign"):
        plan_runs(CARDS, (), benchmark(), Path(folder))
