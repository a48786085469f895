"""Commands on a small random checkpoint of Qwen-VL."""

import csv
import json

import pytest


@pytest.mark.parametrize("kind", ["qwen2_5_vl", "qwen3_vl"])
def test_a_suite_on_a_folder_of_qwen_vl(kind, run, only_tasks_of, qwen, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    only_tasks_of("ocrbench")
    status, out, err = run(
        *("run", "qwen-vl", "--fixtures", "--rows", "divprune,max_pixels,fastv", "--benchmark", "ocrbench"),
        *("--limit", 2, "--device", "cpu", "--checkpoint", qwen(kind), "--out", "table", "--batch-size", 2),
        *("--model-args", "min_pixels=4096,max_pixels=50000"),
    )
    assert status == 0, err
    assert "Max pixels" in out
    with (tmp_path / "table" / "qwen_vl.csv").open() as file:
        rows = list(csv.reader(file))
    assert {"Vanilla", "Max pixels", "FastV", "DivPrune"} <= {row[0] for row in rows}
    tokens = {}
    for record in (tmp_path / "runs").rglob("record.json"):
        content = json.loads(record.read_text())
        assert content["command"][4] == f"{content['method']}_{kind}"
        assert content["settings"]["max_pixels"] == 50000
        lines = [json.loads(line) for file in record.parent.glob("answers.rank*.jsonl") for line in file.open()]
        tokens[content["method"]] = sum(line["account"]["visual_tokens"] for line in lines)
    assert tokens["vanilla"] == tokens["fastv"] > 0
    assert tokens["divprune"] / tokens["vanilla"] == pytest.approx(0.5, abs=0.02)
    assert tokens["max_pixels"] / tokens["vanilla"] == pytest.approx(0.5, abs=0.15)


def test_a_dry_run_shows_qwen_vls_own_models(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, err = run(
        *("run", "qwen-vl", "--checkpoint", "Qwen/Qwen3-VL-30B-A3B-Thinking", "--device", "cpu", "--dry-run"),
        *("--rows", "pyramiddrop", "--benchmark", "docvqa", "--budgets", "0.5"),
    )
    assert status == 0, err
    told = f"{out} {err}"
    assert "--model pyramiddrop_qwen3_vl" in told
    assert "pretrained=Qwen/Qwen3-VL-30B-A3B-Thinking,target_ratio=0.5" in told


def test_route_has_nothing_to_draw_where_there_are_no_tiles(run, qwen, tmp_path, monkeypatch):
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (64, 64)).save("page.png")
    status, _, err = run("route", "page.png", "--checkpoint", qwen("qwen3_vl"), "--model-args", "device=cpu")
    assert status == 1
    assert "method 'vico'" in err
    assert "qwen_vl" in err
