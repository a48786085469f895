from pathlib import Path

import pytest

from vico_eval import paths
from vico_eval.cards import Checkpoints, load_cards
from vico_eval.commands.work.launcher import Launching
from vico_eval.commands.work.plan import Cell, Conditions, plan_runs
from vico_eval.errors import ConfigError

CARDS = {name: card for name, card in load_cards(paths.models_dir()).items() if name != "max_pixels"}
"""Those that InternVL checkpoints can fill."""
RUNS = Path("runs/tiny")


DOCVQA = Cell(benchmark="DocVQA", tasks=("docvqa_val",), results=("docvqa_val",), documents=20)
POPE = Cell(benchmark="POPE", tasks=("pope_adv", "pope_pop"), results=("pope_adv", "pope_pop"))
MMMU = Cell(
    benchmark="MMMU", tasks=("mmmu_val_thinking",), results=("mmmu_val",), model_args={"thinking": True}, documents=5
)


def conditions(**changes):
    settings = {
        "cells": (MMMU, DOCVQA),
        "include_path": Path("tasks"),
        "checkpoints": Checkpoints(base="b", vico="v"),
        "batch_size": 8,
        "device": "cpu",
    }
    return Conditions(**{**settings, **changes})


def benchmark(**changes):
    return conditions(**{"cells": (DOCVQA,), **changes})


def argument(run, name):
    return run.arguments[run.arguments.index(name) + 1]


def model_args(run):
    """Less what every run has."""
    return argument(run, "--model_args").removesuffix(",resume=True,keep_going=True")


def by_name(rows=(), num_seeds=None, **changes):
    return {run.name: run for run in plan_runs(CARDS, rows, benchmark(**changes), RUNS, num_seeds)}


def test_all_rows_are_planned_with_one_run_a_seed():
    assert sorted(by_name()) == sorted(
        [
            *(
                "all_compress",
                "downsample",
                "fastv",
                "image_vir",
                "pool",
                "random-seed0",
                "random-seed1",
                "random-seed2",
            ),
            *("single_tile", "sparsevlm", "vanilla", "vanilla_vir", "vico"),
            *("cdpruner", "cdpruner_alike", "dart", "divprune", "fitprune", "holov", "pyramiddrop"),
            *("random_tokens-seed0", "random_tokens-seed1", "random_tokens-seed2"),
            *("top_attention", "visionzip", "vispruner"),
        ]
    )


def test_internvl_x_has_a_table_of_its_own_whose_first_row_counts_as_100_percent():
    cards = load_cards(paths.models_dir(), "internvl-x")
    own = Checkpoints(base="b", pvtc="p", lvtc="l", full="f")
    runs = plan_runs(cards, (), benchmark(checkpoints=own), Path("runs/x"))
    asked = [(run.title, argument(run, "--model"), model_args(run)) for run in runs]
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
    with pytest.raises(ConfigError, match="no `pvtc` checkpoint with b"):
        plan_runs(cards, ["internvl_x_pvtc"], benchmark(), Path("runs/x"))


def test_vico_starts_first_since_random_waits_for_its_ratios():
    runs = plan_runs(CARDS, (), benchmark(), RUNS)
    assert runs[0].name == "vico"
    waiting = {"random", "pool", "downsample", "fastv", "sparsevlm", "pyramiddrop", "dart", "fitprune"}
    waiting |= {"random_tokens", "top_attention", "divprune", "cdpruner", "cdpruner_alike", "visionzip", "vispruner"}
    waiting |= {"holov"}
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
    assert argument(by_name(limit=20)["vico"], "--limit") == "20"
    assert "--limit" not in by_name()["vico"].arguments


def test_a_gpu_run_is_not_told_to_use_the_cpu_and_a_lone_process_on_one_needs_no_launcher():
    on_gpu, on_cpu = by_name(device="cuda")["vico"], by_name()["vico"]
    assert "accelerate.commands.launch" in on_gpu.launcher
    assert not on_gpu.environment
    assert on_cpu.command([DOCVQA])[1:5] == ("-m", "lmms_eval", "--device", "cpu")
    assert on_cpu.environment == {"ACCELERATE_USE_CPU": "true"}


@pytest.mark.parametrize("folder", ["runs/a,b", "runs/lr=1"])
def test_a_folder_that_argument_strings_cannot_hold_is_refused(folder):
    with pytest.raises(ConfigError, match="comma or an equals sign"):
        plan_runs(CARDS, (), benchmark(), Path(folder))


def test_benchmarks_that_start_the_model_in_another_way_are_runs_of_their_own():
    runs = {run.name: run for run in plan_runs(CARDS, ["random"], conditions(cells=(MMMU, DOCVQA, POPE)), RUNS, 1)}
    assert sorted(runs) == [
        *("random-seed0", "random-seed0.thinking", "vanilla", "vanilla.thinking", "vico", "vico.thinking")
    ]
    assert [cell.benchmark for cell in runs["vico"].cells] == ["DocVQA", "POPE"]
    thinking = runs["random-seed0.thinking"]
    assert thinking.title == runs["random-seed0"].title
    assert thinking.after == "vico.thinking"
    assert model_args(thinking) == (
        "pretrained=v,ratio_from=runs/tiny/vico.thinking,seed=0,thinking=True,record_dir=runs/tiny/random-seed0.thinking"
    )
    assert (thinking.documents, runs["vico"].documents) == (5, None)


def test_a_command_asks_for_the_tasks_of_some_cells():
    (run,) = plan_runs(CARDS, ["vanilla"], conditions(cells=(DOCVQA, POPE)), RUNS)
    assert run.command([POPE, DOCVQA])[-2:] == ("--tasks", "pope_adv,pope_pop,docvqa_val")
    assert run.command([DOCVQA])[:-1] == run.command([POPE])[:-1]


def test_several_processes_are_started_by_what_starts_them_on_that_device():
    on_cpu = by_name(launching=Launching(processes=2))["vico"]
    assert on_cpu.launcher[1:6] == ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    assert on_cpu.environment == {"ACCELERATE_USE_CPU": "true"}
    on_gpus = by_name(launching=Launching(processes=8), device="cuda")["vico"]
    assert on_gpus.launcher[on_gpus.launcher.index("--num_processes") + 1] == "8"
    assert "--multi_gpu" in on_gpus.launcher
    assert not on_gpus.environment
    # What was answered by one process is gone on with by eight.
    assert by_name()["vico"].arguments == on_gpus.arguments == on_cpu.arguments


def test_rows_share_a_folder_of_pictures_which_makes_no_run_anew():
    of_suite = by_name()["vico"]
    for given, expected in ((True, "runs/tiny/previews"), ("/data/small", "/data/small"), (False, "False")):
        for run in by_name(model_args={"previews": given}).values():
            passed = run.command([DOCVQA])
            assert passed[passed.index("--model_args") + 1].endswith(f",keep_going=True,previews={expected}")
            assert "previews" not in " ".join(run.arguments)
    assert by_name(model_args={"previews": False})["vico"].arguments == of_suite.arguments


def test_arguments_of_all_rows_win_over_those_of_a_card():
    given = {"layer": 3, "dtype": "bfloat16"}
    shallow = Checkpoints(base="b", vico="v", model_args={"fastv": {"layer": 1}})
    fastv = by_name(checkpoints=shallow, model_args=given)["fastv"]
    assert "layer=3,dtype=bfloat16" in model_args(fastv)
    assert "layer=1" not in model_args(fastv)


def test_a_checkpoint_whose_path_argument_strings_cannot_hold_is_refused():
    with pytest.raises(ConfigError, match="ckpt/lr=1 has a comma or an equals sign"):
        by_name(checkpoints=Checkpoints(base="b", vico="ckpt/lr=1"))


def test_a_budget_takes_the_place_of_another_row_s_ratio():
    runs = by_name(["fastv"], checkpoints=Checkpoints(base="b"), budgets=(0.1,))
    assert list(runs) == ["vanilla", "fastv.target_ratio-0.1"]  # no ViCO, which these checkpoints lack
    assert runs["fastv.target_ratio-0.1"].after is None
    folder = "record_dir=runs/tiny/fastv.target_ratio-0.1"
    assert model_args(runs["fastv.target_ratio-0.1"]) == f"pretrained=b,target_ratio=0.1,{folder}"
    assert model_args(runs["vanilla"]) == "pretrained=b,record_dir=runs/tiny/vanilla"


def test_a_row_has_a_run_a_budget_each_told_in_its_method_s_way():
    rows = ["vico", "pool", "downsample", "random_tokens"]
    runs = by_name(rows, num_seeds=2, budgets=(0.5, 0.25))
    told = {
        name: model_args(run).split(",record_dir")[0].removeprefix("pretrained=b").lstrip(",")
        for name, run in runs.items()
        if run.budget is not None
    }
    # Of tiles compressed to a quarter: two thirds leave a half, all a quarter.
    assert told == {
        "pool.ratio-0.666667": f"ratio={2 / 3}",
        "pool.ratio-1": "ratio=1.0",
        "downsample.tile_keep_ratio-0.5": "tile_keep_ratio=0.5",
        "downsample.tile_keep_ratio-0.25": "tile_keep_ratio=0.25",
        "random_tokens-seed0.target_ratio-0.5": "target_ratio=0.5,seed=0",
        "random_tokens-seed0.target_ratio-0.25": "target_ratio=0.25,seed=0",
        "random_tokens-seed1.target_ratio-0.5": "target_ratio=0.5,seed=1",
        "random_tokens-seed1.target_ratio-0.25": "target_ratio=0.25,seed=1",
    }
    assert sorted(set(runs) - set(told)) == ["vanilla", "vico"]
    assert {run.title for run in runs.values() if run.system == "pool"} == {"Average pooling"}
