"""A report for scripts: `--json`, and the frame that Python gets."""

import json
import math
from pathlib import Path

import pytest

from vico_eval.commands.work.report import table_frame
from vico_eval.report import write_report

RUNS = Path(__file__).parent.parent / "report" / "data"
VANILLA, INTERNVL = RUNS / "vico_eval_vanilla", RUNS / "lmms_eval_internvl_hf"


@pytest.mark.usefixtures("unsaved_pictures")
def test_the_numbers_for_scripts_are_those_of_the_table(run, tmp_path):
    given = [str(VANILLA), f"InternVL={INTERNVL}"]
    status, out, _ = run("report", *given, "--table", "tiny", "--out", tmp_path / "table", "--json")
    assert status == 0
    found = json.loads(out)
    written = write_report([(None, VANILLA), ("InternVL", INTERNVL)], table="tiny", out=tmp_path / "again")
    assert found["baseline"] == written.table.baseline == "Vanilla"
    assert found["verdicts"] == list(written.table.comparison)
    assert str(tmp_path / "table" / "table3.csv") in found["files"]
    frame = table_frame(written.table)
    assert list(frame.index) == [row["title"] for row in found["rows"]] == ["Vanilla", "InternVL"]
    for row in found["rows"]:
        line = frame.loc[row["title"]]
        assert row["scores"]["Read"] == line["Read"]
        # What is not known is null here and NaN there, as the retention of a row that lacks a benchmark.
        assert row["retention"] == (None if math.isnan(line["retention"]) else line["retention"])
    own = next(row for row in written.table.rows if row.title == "InternVL")
    assert frame.loc["InternVL", "Read"] == own.values["Read"]
    assert math.isnan(frame.loc["Vanilla", "retention"])  # of three benchmarks out of nine
