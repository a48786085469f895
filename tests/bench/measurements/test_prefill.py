"""The benchmark runs as its help says and records what it must; times themselves are no test."""

import json
from functools import partial

import pytest

from vico_eval.bench.flops import prefill_flops


@pytest.fixture
def run(benchmark):
    return partial(benchmark, "prefill.py")


def test_a_record_and_a_table_come_out(run, tmp_path):
    sizes = ("--size", "small", "--visual-tokens", "96", "--text-tokens", "12", "--rounds", "2", "--threads", "1")
    status, err = run(*sizes, "--out", str(tmp_path), "--name", "try")
    assert status == 0, err
    record = json.loads((tmp_path / "try.json").read_text())
    assert record["command"].startswith("python benchmarks/prefill.py --size small")
    assert {"torch", "transformers"} < set(record["versions"])
    assert (record["threads"], record["dtype"], record["attention"]) == (1, "float32", "sdpa")
    systems = record["systems"]
    assert systems["keep everything"]["bound"] == 1
    fastv = systems["fastv K=2 R=0.5"]
    # 2 of 8 layers work on all 96 visual tokens, 6 on half of them.
    assert fastv["visual_tokens_per_layer"] == [96] * 2 + [48] * 6
    shape = type("Shape", (), record["shape"])
    tokens = [count + 12 for count in fastv["visual_tokens_per_layer"]]
    assert fastv["bound"] == pytest.approx(prefill_flops(shape, [108] * 8).total / prefill_flops(shape, tokens).total)
    # In a round, five plain runs stand around the four methods; FastV is the second of them.
    rounds = zip(record["plain"]["seconds"], fastv["seconds"], strict=True)
    expected = [(plain[1] + plain[2]) / 2 / own for plain, own in rounds]
    assert fastv["speedups"] == pytest.approx(expected)
    assert fastv["speedup"] == pytest.approx(sum(expected) / 2)
    assert systems["sparsevlm topk, target 0.5"]["mean_visual_share"] == pytest.approx(0.5, abs=0.01)
    table = (tmp_path / "README.md").read_text()
    assert all(f"| {title} |" in table for title in systems)
    assert "[try](try.json)" in table


def test_an_unknown_size_is_wrong_usage(run):
    status, err = run("--size", "7b")
    assert status == 2
    assert "'7b' is none of small, 0.6b, 8b" in err
