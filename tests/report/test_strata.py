import numpy as np
import pandas as pd
import pytest
from scipy import stats

from vico_eval.report.strata.by_stratum import CATEGORY, HARD, by_stratum
from vico_eval.report.strata.tables import strata_grids, strata_latex, strata_markdown

from .conftest import measurements

SYSTEMS = {"base": "vanilla", "Small": "downsample", "one": "vico", "two": "fastv"}


def fields(scores, categories=None, media=None):
    given = [{"answer": str(score), "score": float(score)} for score in scores]
    for name, values in (("category", categories), ("media", media)):
        if values is not None:
            given = [one | {name: value} for one, value in zip(given, values, strict=True)]
    return given


def strata(by_row, categories=None, media=None, systems=SYSTEMS):
    rows = {(row, run, "X"): fields(own, categories, media) for run, (row, own) in enumerate(by_row.items())}
    systems = {row: systems[row] for row in by_row}
    return by_stratum(measurements(rows), systems, ["X"], "base")


def line(frame, stratum, row):
    (found,) = frame[(frame["stratum"] == stratum) & (frame["row"] == row)].to_dict("records")
    return found


def test_scores_of_categories_and_their_intervals():
    base, one = [100, 100, 0, 100, 100, 100], [100, 0, 0, 0, 100, 100]
    frame = strata({"base": base, "one": one}, categories=["a", "a", "a", "b", "b", ""])
    of_a = line(frame, "a", "one")
    assert (of_a["kind"], of_a["documents"]) == (CATEGORY, 3)
    assert (of_a["score"], of_a["baseline"]) == pytest.approx((100 / 3, 200 / 3))
    assert of_a["difference"] == pytest.approx(-100 / 3)
    interval = stats.ttest_1samp([0, -100, 0], 0).confidence_interval(0.95)  # an independent computation
    assert (of_a["low"], of_a["high"]) == pytest.approx((-100, min(100, interval.high)))
    assert line(frame, "b", "one")["score"] == 50
    assert np.isnan(line(frame, "a", "base")["difference"])
    assert "" not in set(frame["stratum"])  # of no category


def test_documents_about_one_picture_are_one_cluster():
    base, one = [100] * 6, [0, 0, 0, 100, 100, 100]
    media = ["p", "p", "p", "q", "r", "s"]
    alone = line(strata({"base": base, "one": one}, ["a"] * 5 + ["b"]), "a", "one")
    together = line(strata({"base": base, "one": one}, ["a"] * 5 + ["b"], media), "a", "one")
    assert (alone["pictures"], together["pictures"]) == (5, 3)
    assert together["high"] - together["low"] > alone["high"] - alone["low"]


def test_where_nothing_changed_the_interval_has_what_could_have_been_missed():
    own = line(strata({"base": [100] * 4, "one": [100] * 4}, ["a", "a", "a", "b"]), "a", "one")
    most = 100 * stats.binomtest(0, 3).proportion_ci(0.95).high
    assert (own["difference"], own["low"], own["high"]) == pytest.approx((0, -most, most))


def test_hard_groups_by_hand():
    frame = strata(
        {
            "base": [100, 100, 100, 100, 100, 0],
            "Small": [0, 0, 100, 0, 0, 0],
            "one": [100, 0, 100, 0, 0, 100],
            "two": [100, 100, 0, 0, 0, 100],
        }
    )
    assert set(frame["kind"]) == {HARD}
    lost = "lost by Small"
    assert (line(frame, lost, "one")["documents"], line(frame, lost, "one")["score"]) == (4, 25)
    assert line(frame, lost, "two")["score"] == 50
    assert line(frame, "kept by Small", "two")["score"] == 0
    assert not (frame["row"] == "Small").any()  # it defines the groups, and is no method to be compared
    # Of what the other method loses, `one` answers one of three and `two` one of three.
    assert (line(frame, "lost by all other methods", "one")["documents"]) == 3
    assert line(frame, "lost by all other methods", "one")["score"] == pytest.approx(100 / 3)
    assert line(frame, "lost by all other methods", "two")["score"] == pytest.approx(100 / 3)
    (only,) = frame[frame["stratum"] == "answered by base only"].to_dict("records")
    assert (only["documents"], only["share"]) == (2, pytest.approx(100 / 3))


def test_a_mean_over_runs_counts_as_answered_from_a_half():
    rows = {("base", 0, "X"): fields([100, 100]), ("Small", 1, "X"): fields([0, 0])}
    rows |= {("one", 2, "X"): fields([100, 0]), ("one", 3, "X"): fields([0, 0])}
    systems = {"base": "vanilla", "Small": "downsample", "one": "random"}
    frame = by_stratum(measurements(rows), systems, ["X"], "base")
    assert line(frame, "lost by Small", "one")["score"] == 25
    (only,) = frame[frame["stratum"] == "answered by base only"].to_dict("records")
    assert only["documents"] == 1  # the first is answered by half of the runs


def test_rows_without_scores_by_document_are_left_out():
    frame = strata({"base": [100, 100], "Small": [0, 0], "one": [float("nan")] * 2, "two": [100, 0]})
    assert set(frame["row"].dropna()) == {"two"}
    assert by_stratum(measurements({("one", 0, "X"): fields([100])}), {"one": "vico"}, ["X"], "base").empty


def test_strata_as_tables():
    base, one = [100] * 40, [0] * 20 + [100] * 20
    frame = strata({"base": base, "Small": [0] * 40, "one": one}, ["a_b"] * 20 + ["c"] * 20)
    grids = strata_grids(frame, ["base", "Small", "one"], ["X"], "base")
    assert [grid.caption for grid in grids] == ["X by category", "Hard documents"]
    markdown = strata_markdown(grids)
    assert "| Method | a\\_b | c |" in markdown
    assert "| one | **0.0** | 100.0 |" in markdown
    assert "| one | 50.0 |" in markdown
    latex = strata_latex(grids, "tab:x")
    assert r"\label{tab:x-1}" in latex
    assert r"\label{tab:x-2}" in latex
    assert r"a\_b" in latex
    assert strata_grids(pd.DataFrame(columns=list(frame.columns)), ["base"], ["X"], "base") == []
