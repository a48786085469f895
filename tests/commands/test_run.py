"""A suite from end to end, and what its options mean."""

import json

import pytest

from vico_eval import paths
from vico_eval.cards import find_checkpoints
from vico_eval.commands.output import message_console
from vico_eval.commands.work.options import RunOptions
from vico_eval.commands.work.plan import Cell
from vico_eval.commands.work.run import run_suite
from vico_eval.commands.work.run_folders import DocumentsFailed, check_cells
from vico_eval.commands.work.starting import num_cores
from vico_eval.commands.work.table import choose_benchmarks
from vico_eval.commands.work.task_data import own_data
from vico_eval.errors import ConfigError, ReportError
from vico_eval.suites import load_benchmarks, load_suite


def test_a_benchmark_that_fails_stops_no_other_and_is_told_at_the_end(run, only_tasks_of, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    only_tasks_of("ocrbench", "mme")
    # MME asks in pairs, and its scorer fails on an odd number of documents.
    status, out, err = run(
        *("run", "vico-table1", "--fixtures", "--rows", "vanilla", "--benchmark", "ocrbench,mme", "--limit", 3),
        *("--device", "cpu"),
    )
    assert status == 1
    assert "1 of 2 cells are incomplete" in err
    assert "vanilla on MME: " in err
    assert "--tasks local_mme" in err
    assert "Vanilla: not run on" in out
    assert "the scores measure nothing" in out
    results = tmp_path / "runs" / "vico-table1-fixtures-limit3"
    assert (results / "report" / "table1.tex").is_file()
    assert (results / "report" / "page" / "index.html").is_file()
    check_cells(results / "vanilla", [Cell(benchmark="OCRBench", tasks=("ocrbench",), results=("ocrbench",))])
    with pytest.raises(ReportError, match="no results of mme"):
        check_cells(results / "vanilla", [Cell(benchmark="MME", tasks=("mme",), results=("mme",))])
    failure = {"task": "ocrbench", "split": "test", "doc_id": 1, "reason": "no such image"}
    (results / "vanilla" / "failures.rank0.jsonl").write_text(json.dumps(failure) + "\n")
    (samples,) = results.rglob("*_samples_ocrbench.jsonl")
    lines = [json.loads(line) for line in samples.read_text().splitlines()]
    lines[1] |= {"filtered_resps": "", "resps": "", "token_counts": [None]}
    samples.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(DocumentsFailed, match="1 of 3 documents have no answer; the first: no such image"):
        check_cells(results / "vanilla", [Cell(benchmark="OCRBench", tasks=("ocrbench",), results=("ocrbench",))])


def test_a_judge_is_never_called_silently(capsys):
    suite = load_suite("internvl-x-table1")
    without = choose_benchmarks(suite, RunOptions(), message_console())
    assert "MMVet" not in [benchmark.title for benchmark in without]
    assert "Skipped: MMVet, which needs a judge model" in " ".join(capsys.readouterr().err.split())
    assert "MMVet" in [
        benchmark.title for benchmark in choose_benchmarks(suite, RunOptions(judge=True), message_console())
    ]
    with pytest.raises(ConfigError, match="unknown benchmark 'mmve' in internvl-x-table1"):
        choose_benchmarks(suite, RunOptions(benchmarks=["mmve"]), message_console())


def test_arguments_that_tell_rows_apart_are_not_for_all_of_them():
    with pytest.raises(ConfigError, match="--model-args has seed, which each row's command sets itself"):
        run_suite("tiny", RunOptions(model_args={"seed": 3}))


def test_the_documents_of_local_data_are_known_beforehand():
    catalogue, data = load_benchmarks(), own_data()
    assert data.cell(catalogue["tiny_read"], 3).documents == 3
    assert sum(data.cell(catalogue[name], None).documents for name in load_suite("tiny").benchmarks) >= 1500
    assert data.cell(catalogue["docvqa"], 3).documents is None


def test_a_checkpoint_by_size_by_path_or_by_kind(tmp_path):
    table3, tiny = load_suite("vico-table3"), load_suite("tiny")
    assert find_checkpoints("8B", table3).vico == "OpenGVLab/InternVL3_5-8B-Flash"
    assert find_checkpoints("3.5-2B", table3).base == "OpenGVLab/InternVL3_5-2B"
    assert find_checkpoints(None, tiny).vico == "vico-tiny"
    assert find_checkpoints(None, table3, is_small=True).vico == "vico-tiny"
    assert find_checkpoints(str(tmp_path), table3).lvtc == str(tmp_path)
    named = find_checkpoints("base=a/b,vico=c/d", table3)
    assert (named.base, named.vico, named.pvtc) == ("a/b", "c/d", None)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "suite vico-table3 needs --checkpoint"),
        ("9B", "unknown checkpoint '9B'"),
        ("vico=a/b", "expected base=CHECKPOINT"),
        ("base=", "expected base=CHECKPOINT"),
        ("base=a/b,flash=c/d", "expected base=CHECKPOINT"),
    ],
)
def test_a_checkpoint_that_is_none(given, message):
    with pytest.raises(ConfigError, match=message):
        find_checkpoints(given, load_suite("vico-table3"))


def test_there_is_a_core():
    assert num_cores() >= 1
    assert paths.tasks_dir().is_dir()


def test_budgets_have_an_option():
    with pytest.raises(ConfigError, match=r"--model-args has target_ratio; give it as --budgets 0.2"):
        run_suite("tiny", RunOptions(model_args={"target_ratio": 0.2}))
    with pytest.raises(ConfigError, match="none of these rows does"):
        run_suite("tiny", RunOptions(rows=["vanilla", "vico"], budgets=(0.5,)))


def test_a_model_is_named_in_full_and_a_size_also_by_its_end():
    suite = load_suite("tops")
    assert find_checkpoints("InternVL3-8B", suite).base == "OpenGVLab/InternVL3-8B"
    assert find_checkpoints("8B", suite).base == "OpenGVLab/InternVL3_5-8B"


def test_a_suite_s_own_arguments_are_every_row_s_and_its_share_that_of_rows_that_save(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ("--checkpoint", "a/b", "--rows", "fastv", "--device", "cpu", "--dry-run")
    status, _, err = run("run", "tops", *options)
    assert status == 0
    assert "pretrained=a/b,tiles=2x2,record_dir=runs/tops-a-b/vanilla" in err
    assert "pretrained=a/b,target_ratio=0.2,tiles=2x2,record_dir=runs/tops-a-b/fastv.target_ratio-0.2" in err
    assert "ratio_from" not in err
    _, _, err = run("run", "tops", *options, "--model-args", "tiles=3x3", "--budgets", "0.1")
    assert "pretrained=a/b,tiles=3x3,record_dir=runs/tops-a-b/vanilla" in err
    assert "pretrained=a/b,target_ratio=0.1,tiles=3x3,record_dir=runs/tops-a-b/fastv.target_ratio-0.1" in err


def test_a_rehearsal_leaves_what_four_layers_can(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = ("--rows", "fastv,sparsevlm", "--benchmark", "ai2d", "--device", "cpu", "--fixtures", "--dry-run")
    status, _, err = run("run", "tops", *own)
    assert status == 0
    assert err.count("target_ratio=0.5,") == 2
    status, _, err = run("run", "tops", *own, "--budgets", "0.1")
    assert status == 1
    assert "fastv can't reach target_ratio=0.1: 1 of 4 layers process all visual tokens" in err


def test_methods_and_budgets_are_answered_in_one_pass_less_what_a_method_can_t_reach(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = ("run", "tiny", "--rows", "divprune,fastv", "--device", "cpu", "--dry-run", "--jobs", 1)
    status, _, err = run(*asked, "--budgets", "0.25,0.5,0.1")
    assert status == 0
    # The first of four layers works on all tokens: FastV leaves more than a quarter.
    assert "Skipped: fastv at 25%: fastv can't reach target_ratio=0.25: 1 of 4 layers process all visual tokens" in err
    assert "Skipped: fastv at 10%: fastv can't reach" in err
    assert "5 runs in 1 pass; 45 of 45 cells to do." in err
    divprune = ", ".join(f"divprune.target_ratio-{share}" for share in (0.5, 0.25, 0.1))
    assert f"pass vanilla+4: vanilla, fastv.target_ratio-0.5, {divprune}\n" in err
    status, _, err = run(*asked, "--budgets", "0.25,0.1")
    assert status == 1
    assert "fastv can't reach target_ratio=0.25: " in err
    assert "Left out" not in err


def test_rows_of_a_table_share_passes_unless_they_are_not_to(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = ("run", "vico-table3", "--checkpoint", "base=a/b,vico=c/d", "--rows", "vanilla,single_tile,fastv")
    options = (*asked, "--benchmark", "docvqa", "--device", "cpu", "--dry-run")
    status, _, err = run(*options, "--jobs", 1)
    assert status == 0
    assert "4 runs in 2 passes; 4 of 4 cells to do." in err
    file = "runs/vico-table3-base-a-b-vico-c-d/passes/vanilla+2.yaml"
    assert (
        "pass vanilla+2: vanilla, single_tile, fastv, after vico\n  apart from vico: checkpoint is a/b, there c/d"
        in err
    )
    assert f"-m vico_eval.harnesses.lmms_eval.run_pass --config {file}\n" in err
    assert "-m lmms_eval --device cpu --model fastv_internvl --model_args pretrained=a/b," in err
    assert not (tmp_path / file).exists()
    _, _, err = run(*options, "--jobs", 2)
    assert "pass vanilla+1: vanilla, single_tile\n" in err
    _, _, err = run(*options, "--no-shared-pass")
    assert "4 runs; 4 of 4 cells to do." in err
    assert "--config" not in err


def test_which_file_a_pass_is_read_from_is_for_its_command_to_say():
    with pytest.raises(ConfigError, match="--model-args has shared_pass, which each row's command sets itself"):
        run_suite("tiny", RunOptions(model_args={"shared_pass": "passes/a.yaml"}))
