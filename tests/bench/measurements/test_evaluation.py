"""Both models answer the same documents through lmms-eval, and a record says so; times themselves are no test."""

import pytest

from vico_eval.bench.measurements import evaluated, evaluation


def test_both_answer_two_questions_about_a_picture_alike(tmp_path):
    shape = evaluation.Shape(documents=2, tasks=(evaluated.PAIRS,), max_tiles=12, batch_size=2)
    evaluated.save_checkpoint(evaluated.tiny_model(), shape.max_tiles, tmp_path / "checkpoint")
    evaluated.save_pairs(tmp_path / "tasks")
    measured = evaluation.compare(shape, tmp_path, "float32", rounds=1, device="cpu")
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
    lines = evaluation.readme({"try": measured | origin}).splitlines()
    assert sum(line.endswith("| 2 of 2 |") for line in lines) == 2
