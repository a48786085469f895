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
