"""The benchmark of the report makes one of invented runs, and shows what it measured; times themselves are no test."""

import json

import pytest

from vico_eval.bench.measurements.invented_runs import columns, write_runs
from vico_eval.bench.measurements.report import measure_whole, readme


@pytest.mark.usefixtures("unsaved_pictures")
def test_invented_runs_become_a_report_of_all_columns(tmp_path):
    assert len(columns()) == 17
    runs = write_runs(tmp_path / "runs", 2, 60)
    (samples,) = runs[1].rglob("*_samples_docvqa_val.jsonl")
    lines = [json.loads(line) for line in samples.read_text().splitlines()]
    account = lines[0]["token_counts"][0]["account"]
    assert (len(lines), account["tiles"], len(account["visual_tokens_per_layer"])) == (60, 13, 36)
    assert len({line["token_counts"][0]["account"]["media"] for line in lines}) == 20  # three documents a picture
    measured = measure_whole(runs, tmp_path / "report")
    assert measured["seconds"] > 0
    assert 0.1 < measured["peak_gib"] < 8
    table = (tmp_path / "report" / "table.md").read_text()
    cells = next(line for line in table.splitlines() if line.startswith("| Row 1")).split("|")
    assert len(cells) == 2 + 1 + 17 + 3  # ends, title, benchmarks; average, difference and tokens
    assert not any("–" in cell for cell in cells[2:20])


def test_the_readme_shows_every_record():
    sizes = {"rows": 20, "benchmarks": 17, "documents": 1000, "threads": 2, "rounds": 2}
    times = {"seconds": [3.0, 1.0, 2.0], "cpu_seconds": [1.5], "peak_gib": [0.5, 0.75], "published_seconds": [1.25]}
    words = {"processor": "chip", "versions": {"python": "3.11"}, "date": "2026-11-21", "command": "python x"}
    record = {**sizes, **times, **words, "stages": {"reading": 1.5}}
    lines = readme({"try": record})
    assert "| 20 x 17 x 1,000 | chip | 2 | 2.0 s | 1.5 s | 0.75 GiB | 1.2 s |" in lines
    assert "| reading | 1.50 |" in lines
    assert "[try](try.json)" in lines
