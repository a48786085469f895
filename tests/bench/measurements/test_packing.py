"""The benchmark of packing measures the same step of both ways; times themselves are no test."""

import json

import pytest

from vico_eval.bench.measurements import flash_training


def test_a_record_and_a_table_come_out(benchmark, tmp_path, monkeypatch):
    monkeypatch.setitem(flash_training.VISION["small"], "num_hidden_layers", 1)
    arguments = ("--rounds", "1", "--samples", "3", "--tiles", "2", "--words", "8", "--out", str(tmp_path))
    status, err = benchmark("packing.py", *arguments)
    assert status == 0, err
    record = json.loads((tmp_path / "small-cpu-float32.json").read_text())
    assert record["attention"] == "sdpa"
    assert record["positions"]["padded"] >= record["positions"]["packed"] > 0
    (around,) = record["padded"]["seconds"]
    (seconds,) = record["packed"]["seconds"]
    assert record["packed"]["speedup"] == pytest.approx(sum(around) / 2 / seconds)
    table = (tmp_path / "README.md").read_text()
    assert f"| {record['positions']['padded']:,} | {record['positions']['packed']:,} |" in table


def test_both_ways_have_the_same_loss():
    settings = flash_training.Settings(size="small", tiles=2, words=8, device="cpu", dtype="float32")
    step = flash_training.Step(settings, [flash_training.make_sample(tiles, 8, str(tiles)) for tiles in (1, 2)])
    step.pair.eval()  # without dropout
    padded, packed = (step.loss_padded_or_packed(is_packed=is_packed) for is_packed in (False, True))
    assert float(padded.detach()) > 1e-4
    assert float(packed.detach()) == pytest.approx(float(padded.detach()), rel=1e-4)
