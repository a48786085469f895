"""The benchmark of start-up finds what it measures; times themselves are no test."""

import json

from vico_eval.bench.measurements import startup


def test_a_record_and_a_table_come_out(benchmark, tmp_path, monkeypatch):
    # It takes ten seconds, which to register in lmms-eval takes too, and is measured as the others are.
    monkeypatch.delitem(startup.MEASURES, "import of lmms_eval.models")
    status, err = benchmark("startup.py", "--rounds", "1", "--out", str(tmp_path))
    assert status == 0, err
    record = json.loads((tmp_path / "cpu.json").read_text())
    assert record["seconds"].keys() == startup.MEASURES.keys()
    assert all(len(seconds) == 1 and seconds[0] > 0 for seconds in record["seconds"].values())
    table = (tmp_path / "README.md").read_text()
    assert "| registering in lmms-eval |" in table
    assert "| below 0.05 |" in table
