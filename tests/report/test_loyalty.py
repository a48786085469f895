import math

import pandas as pd
import pytest

from vico_eval.report.stats.loyalty import first_difference, loyalty
from vico_eval.report.stats.measurements import Measurements
from vico_eval.report.stats.retention import AVERAGE

from .conftest import measurements

NAN = float("nan")


def measured(answers: dict[tuple[str, int, str], list[tuple[str | None, float]]], failed=()) -> Measurements:
    """Answers with their scores by row, run and benchmark."""
    fields = {key: [{"answer": answer, "score": score} for answer, score in own] for key, own in answers.items()}
    return measurements(fields, failed)


def lines_of(found: Measurements) -> pd.DataFrame:
    rows, benchmarks = (list(found.cells[name].unique()) for name in ("row", "benchmark"))
    return loyalty(found, rows, benchmarks, "base").set_index(["row", "benchmark"])


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("7", " 7\n", None),
        ("", "  ", None),
        ("", "7", (0, 0)),
        ("a red car", "a red cart", (9, 2)),  # one ends where the other goes on
        ("a red car", "a red bus", (6, 2)),
        ("naïve 1", "nai\u0308ve 1", None),  # composed or not, it is the same letter
        ("naïve 1", "nai\u0308ve 2", (6, 1)),
        ("日本語", "日本人", (2, 0)),
        ("🚗🚗 x", "🚗🚕 x", (1, 0)),  # characters, not bytes
        ("Yes", "yes", (0, 0)),
    ],
)
def test_where_answers_part(one, other, expected):
    assert first_difference(one, other) == expected
    assert first_difference(other, one) == expected


def test_same_answers_and_changes_by_hand():
    base = [("A", 100), ("B", 0), ("C", 100), ("", 0)]
    vico = [("A ", 100), ("D", 100), ("CC", 0), (" ", 0)]
    lines = lines_of(measured({("base", 0, "X"): base, ("vico", 1, "X"): vico}))
    line = lines.loc[("vico", "X")]
    assert line["documents"] == 4
    assert line["same_answer"] == 50.0
    assert (line["lost"], line["gained"]) == (1, 1)
    assert line["first_difference_characters"] == 0.5  # B and D at once, C and CC after one
    assert "base" not in lines.index


def test_the_average_weighs_benchmarks_alike_and_adds_up_documents():
    base, vico = [("A", 100.0)] * 4, [("A", 100.0)] * 3 + [("B", 0.0)]
    one = {("base", 0, "X"): base, ("vico", 1, "X"): vico}
    lines = lines_of(measured(one | {("base", 0, "MME"): [("A", NAN)] * 2, ("vico", 1, "MME"): [("B", NAN)] * 2}))
    average = lines.loc[("vico", AVERAGE)]
    assert average["same_answer"] == 37.5  # 75% and 0%
    assert (average["documents"], average["lost"], average["gained"]) == (6, 1, 0)
    assert math.isnan(lines.loc[("vico", "MME"), "lost"])


def test_every_run_is_paired_with_every_run_of_the_baseline():
    right, wrong = [("A", 100.0)], [("B", 0.0)]
    runs = {("base", 0, "X"): right, ("base", 1, "X"): wrong, ("random", 2, "X"): right, ("random", 3, "X"): right}
    line = lines_of(measured(runs)).loc[("random", "X")]
    assert line["same_answer"] == 50.0
    assert (line["lost"], line["gained"]) == (0, 0.5)


def test_failed_and_missing_benchmarks_are_left_out_and_named():
    answers = {
        (row, run, name): [("A", 100.0)] * 2 for run, row in enumerate(("base", "vico", "other")) for name in "XY"
    }
    answers["vico", 1, "Y"] = [("A", NAN), (None, NAN)]
    del answers["other", 2, "X"]
    lines = lines_of(measured(answers, failed=[("vico", "Y")]))
    assert lines.loc[("vico", "Y"), "left_out"] == "vico has documents that could not be answered"
    assert math.isnan(lines.loc[("vico", "Y"), "same_answer"])
    assert lines.loc[("vico", AVERAGE), "documents"] == 2
    assert lines.loc[("vico", AVERAGE), "left_out"] == "Y (vico has documents that could not be answered)"
    assert lines.loc[("other", "X"), "left_out"] == "other was not run"
    # What failed in one row takes nothing from another.
    assert lines.loc[("other", "Y"), ["same_answer", "lost"]].to_list() == [100.0, 0.0]
