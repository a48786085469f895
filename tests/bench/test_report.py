"""The benchmark of the report makes one of invented runs, and shows what it measured; times themselves are no test."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "report.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("report_benchmark", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses and pickles look themselves up there
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.mark.usefixtures("unsaved_pictures")
def test_invented_runs_become_a_report_of_all_columns(script, tmp_path):
    assert len(script.columns()) == 17
    runs = script.write_runs(tmp_path / "runs", 2, 60)
    (samples,) = runs[1].rglob("*_samples_docvqa_val.jsonl")
    lines = [json.loads(line) for line in samples.read_text().splitlines()]
    account = lines[0]["token_counts"][0]["account"]
    assert (len(lines), account["tiles"], len(account["visual_tokens_per_layer"])) == (60, 13, 36)
    assert len({line["token_counts"][0]["account"]["media"] for line in lines}) == 20  # three documents a picture
    measured = script.measure_whole(runs, tmp_path / "report")
    assert measured["seconds"] > 0
    assert 0.1 < measured["peak_gib"] < 8
    table = (tmp_path / "report" / "table.md").read_text()
    cells = next(line for line in table.splitlines() if line.startswith("| Row 1")).split("|")
    assert len(cells) == 2 + 1 + 17 + 3  # ends, title, benchmarks; average, difference and tokens
    assert not any("–" in cell for cell in cells[2:20])


def test_the_readme_shows_every_record(script):
    sizes = {"rows": 20, "benchmarks": 17, "documents": 1000, "threads": 2, "rounds": 2}
    times = {"seconds": [3.0, 1.0, 2.0], "cpu_seconds": [1.5], "peak_gib": [0.5, 0.75], "published_seconds": [1.25]}
    words = {"processor": "chip", "versions": {"python": "3.11"}, "date": "2026-11-21", "command": "python x"}
    record = {**sizes, **times, **words, "stages": {"reading": 1.5}}
    readme = script.readme({"try": record})
    assert "| 20 x 17 x 1,000 | chip | 2 | 2.0 s | 1.5 s | 0.75 GiB | 1.2 s |" in readme
    assert "| reading | 1.50 |" in readme
    assert "[try](try.json)" in readme
