"""`vico-eval throughput local` from the command line; times themselves are no test."""

import json

import pytest
import torch


def test_methods_and_table_4_share_a_folder_and_its_readme(run, tmp_path):
    common = ("--rounds", "1", "--device", "cpu", "--out", str(tmp_path))
    status, out, err = run("throughput", "local", "--methods", "vanilla,fastv", "--name", "try", *common)
    assert status == 0, err
    assert "Time by stage of the engine: vico-tiny" in out
    assert "Wrote try.json" in err
    record = json.loads((tmp_path / "try.json").read_text())
    assert record["command"].split()[0] == "vico-eval"
    assert (record["model"], record["dtype"], record["attention"]) == ("vico-tiny", "float32", "sdpa")
    assert {"torch", "transformers"} < set(record["versions"])
    assert record["methods"]["fastv"]["speedups"]["llm"]["bound"] > 1
    status, out, err = run("throughput", "local", "--table4", *common)
    assert status == 0, err
    assert "as in ViCO's Table 4" in out
    names = {path.name for path in tmp_path.iterdir()}
    table = "table4-vico-tiny-cpu-float32"
    assert names == {
        *("try.json", "try-stages.csv", "try-stages.tex", "try-speedups.csv", "try-speedups.tex"),
        *(f"{table}{suffix}" for suffix in (".json", ".csv", ".tex")),
        "README.md",
    }
    readme = (tmp_path / "README.md").read_text()
    assert "[try](try.json)" in readme
    assert f"[{table}]({table}.json)" in readme


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--methods", "vanila"], 1, "did you mean 'vanilla'"),
        (["--methods", ","], 1, "got methods none"),
        (["--method-args", "keep=0.3"], 1, "none of the methods vanilla, vico, fastv has an argument 'keep'"),
        (["--checkpoint", "vico-tiny-base", "--methods", "vico"], 1, "'vico-tiny-base' has no low connector"),
        (["--shape", "7b"], 1, "unknown shape '7b'; known are small, 0.6b, 8b"),
        (["--dtype", "int8"], 1, "unknown dtype 'int8'"),
        (["--attention", "fast"], 1, "unknown attn_implementation 'fast'"),
        (["--table4", "--methods", "vico"], 2, "be combined with --methods, --method-args or --batch-size"),
        (["--shape", "small", "--checkpoint", "vico-tiny"], 2, "replaces --checkpoint"),
        (["--rounds", "0"], 2, "--rounds"),
    ],
)
def test_what_cannot_be_measured_is_said_before_it_is_tried(run, tmp_path, arguments, status, message):
    found, out, err = run("throughput", "local", *arguments, "--out", str(tmp_path))
    assert (found, out) == (status, "")
    assert message in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_said(run, tmp_path):
    status, _, err = run("throughput", "local", "--device", "cuda", "--out", str(tmp_path))
    assert status == 1
    assert "torch sees 0 GPUs" in err
