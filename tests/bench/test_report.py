"""The benchmark of the report runs as its help says and records what it must; times themselves are no test."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "report.py"


def test_a_record_and_a_table_come_out(tmp_path):
    sizes = ("--rows", "2", "--documents", "14", "--rounds", "1", "--cores", "1")
    command = [sys.executable, SCRIPT, *sizes, "--out", str(tmp_path), "--name", "try"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "try.json").read_text())
    assert record["command"].startswith("python benchmarks/report.py --rows 2")
    assert (record["rows"], record["benchmarks"], record["documents"], record["threads"]) == (2, 17, 14, 1)
    assert {"pandas", "pydantic"} < set(record["versions"])
    assert set(record["stages"]) >= {"reading", "counting", "table", "pictures", "uncertainty", "loyalty"}
    assert sum(record["stages"].values()) > 0
    assert 0.1 < record["peak_gib"][0] < 1
    assert "| 2 x 17 x 14 |" in (tmp_path / "README.md").read_text()
