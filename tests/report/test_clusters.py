"""What is drawn together, and that every number of a report is drawn so."""

import math

import numpy as np
import pytest

from vico_eval.report.paired.columns import columns_of
from vico_eval.report.paired.draws import Draws
from vico_eval.report.scores.by_document import Terms, from_terms, grown, growth
from vico_eval.report.scores.clusters import Together, clusters_of
from vico_eval.report.scores.counted import CountedDocuments
from vico_eval.report.stats.measurements import Documents, Measurements
from vico_eval.report.stats.retention import document_values, paired_difference, retention_standard_error
from vico_eval.report.stats.uncertainty import compare_with_baseline

from .conftest import measurements


def numbers(units, *media) -> list[int]:
    (found,) = clusters_of([Together(units, media)])
    return found.tolist()


def test_documents_that_share_a_picture_or_are_scored_together_are_one_cluster():
    # 0 and 1 share a picture, 1 and 3 a unit: so 0, 1 and 3 are one. 2 and 4 have no picture, and share none.
    assert numbers([10, 11, 12, 11, 14], ["a", "a", "", "b", ""]) == [0, 0, 1, 0, 2]
    assert numbers([0, 1, 2, 3], ["a", "b", "c", "a"]) == [0, 1, 2, 0]
    # Chains reach through both kinds, whichever comes first.
    assert numbers([0, 0, 1, 1, 2, 2], ["a", "b", "b", "c", "d", "e"]) == [0, 0, 0, 0, 1, 1]
    assert numbers(list(range(1000)), [str(number // 2) for number in range(1000)]) == [n // 2 for n in range(1000)]


def test_a_unit_and_a_picture_of_one_name_are_two_things():
    assert numbers(["a", "b"], ["b", "c"]) == [0, 1]


def test_pictures_count_where_a_run_says_them_of_every_document():
    assert numbers([0, 1, 2], ["a", None, "a"], ["x", "x", "y"]) == [0, 0, 1]
    assert numbers([0, 1], ["a", None]) == [0, 1]
    assert numbers([0, 1]) == [0, 1]


def test_benchmarks_share_pictures_but_no_units():
    # The second benchmark's first document is about b, as the first one's last two are; its unit 0 is another.
    found = clusters_of([Together([0, 1, 2], [["a", "b", "b"]]), Together([0, 1], [["b", "c"]])])
    assert [own.tolist() for own in found] == [[0, 1, 1], [1, 2]]
    assert clusters_of([]) == []


def test_a_document_of_several_requests_has_the_pictures_of_all():
    assert numbers([0, 1, 2], ["a\nb", "b", "c\nc"]) == [0, 0, 1]


def pairs_about_shared_pictures() -> Measurements:
    """Pairs of questions, of which two at a time are about one picture: 400 documents, 200 units, 100 pictures."""
    generator = np.random.default_rng(0)
    rights = [np.repeat(generator.random(100) < share, 4).astype(float) for share in (0.9, 0.7)]
    units = [number // 2 for number in range(400)]
    pictures = [f"{number // 4:08x}" for number in range(400)]
    found = measurements({(row, run, "A"): [{"score": 0.0, "answer": ""}] for run, row in enumerate(("base", "vico"))})
    scored = [from_terms(Terms(list(own), list(own), [1.0] * 400, [""] * 400, units)) for own in rights]
    runs = {
        run: CountedDocuments(scored=own, answers=np.full(400, "", dtype=object), media=pictures)
        for run, own in enumerate(scored)
    }
    documents = {"A": Documents(tasks={"A": 400}, runs=runs)}
    values = document_values(found.cells, documents)
    return Measurements(cells=found.cells, documents=documents, values=values, notes=())


def test_table_pictures_tests_and_intervals_have_one_sample():
    found = pairs_about_shared_pictures()
    values = found.values["A"]
    assert values.index.nunique() == 100  # not 200 units
    rows = ["base", "vico"]
    lines = compare_with_baseline(Draws(rows, columns_of(found, rows, ["A"])), "base")
    line = lines.set_index("benchmark").loc["A"]
    assert (line["documents"], line["pictures"], line["test"]) == (400, 100, "paired t over images")
    scores = values.mean().to_frame("A")
    error = retention_standard_error({"A": values}, scores, "base")["vico"]
    assert error == pytest.approx(line["standard_error"], rel=0.05)
    difference = paired_difference({"A": values}, "base")
    own = (values["vico"] - values["base"]).groupby(level=0).mean()
    assert difference.standard_error.loc["vico", "A"] == pytest.approx(own.std(ddof=1) / math.sqrt(100))


def test_a_parts_lost_spread_is_that_of_its_clusters():
    # Parts of four documents: beside a mean sqrt(3 / 4) of the spread of four is left, sqrt(1 / 2) of two clusters'.
    rights = [1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0]
    scored = from_terms(Terms(rights, rights, [1.0] * 8, ["a"] * 4 + ["b"] * 4))
    assert grown(scored.values, growth(scored, np.arange(8))) is scored.values
    values = grown(scored.values, growth(scored, np.array([0, 0, 1, 1, 2, 3, 4, 5])))
    assert values.mean() == pytest.approx(50)
    assert values[:4] - 50 == pytest.approx((scored.values[:4] - 50) * math.sqrt(2 / (4 / 3)))
    assert values[4:] == pytest.approx(scored.values[4:])
    # A part about a single picture says nothing of others.
    assert np.isnan(grown(scored.values, growth(scored, np.array([0, 0, 0, 0, 2, 3, 4, 5])))[:4]).all()
