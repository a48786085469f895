"""The benchmark of start-up finds what it measures; times themselves are no test."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "startup.py"


def test_a_record_and_a_table_come_out(tmp_path):
    done = subprocess.run(
        [sys.executable, SCRIPT, "--rounds", "1", "--out", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "cpu.json").read_text())
    assert all(len(seconds) == 1 and seconds[0] > 0 for seconds in record["seconds"].values())
    table = (tmp_path / "README.md").read_text()
    assert "| registering in lmms-eval |" in table
    assert "| below 0.05 |" in table
