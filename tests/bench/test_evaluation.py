"""Both models answer the same documents through lmms-eval, and a record says so; times themselves are no test."""

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "evaluation.py"


@pytest.fixture
def evaluation(monkeypatch):
    spec = importlib.util.spec_from_file_location("evaluation_benchmark", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def test_both_answer_two_questions_about_a_picture_alike(evaluation, tmp_path):
    shape = evaluation.Shape(documents=2, tasks=(evaluation.PAIRS,), max_tiles=12, batch_size=2)
    evaluation.save_checkpoint(evaluation.tiny_model(), shape.max_tiles, tmp_path / "checkpoint")
    evaluation.save_pairs(tmp_path / "tasks")
    measured = evaluation.measure(shape, tmp_path, "float32", rounds=1, device="cpu")
    assert (measured["documents"], measured["baseline"]) == (2, "internvl_hf, float32")
    assert list(measured["systems"]) == [f"vanilla_internvl, float32, batch {size}" for size in (1, 2)]
    for place, system in enumerate(measured["systems"].values()):
        assert system["equal_answers"] == 2
        beside = measured["baseline_seconds"][place : place + 2]
        assert system["speedup"] == pytest.approx(sum(beside) / 2 / system["seconds"][0])
    origin = {
        "shape": "tiny",
        "processor": "here",
        "rounds": 1,
        "threads": 1,
        "versions": {},
        "date": "",
        "command": "",
    }
    lines = evaluation.table({"try": measured | origin}).splitlines()
    assert sum(line.endswith("| 2 of 2 |") for line in lines) == 2
