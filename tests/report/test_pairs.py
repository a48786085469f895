"""Rows against rows, and which of them are bold, against numbers that are known otherwise."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from vico_eval.errors import ReportError
from vico_eval.report.paired.best import best_of
from vico_eval.report.paired.columns import columns_of
from vico_eval.report.paired.draws import Draws
from vico_eval.report.paired.pairs import compare_pairs, pairs_of
from vico_eval.report.stats.retention import AVERAGE
from vico_eval.report.stats.sentences import pair_sentences
from vico_eval.report.tables.table import Row, Table

from .conftest import measurements


def drawn(scores: dict[str, dict[str, list[float]]], failed=()) -> Draws:
    """From documents' scores by row and benchmark."""
    rows = list(scores)
    fields = {
        (row, run, name): [{"answer": "", "score": score} for score in own]
        for run, row in enumerate(rows)
        for name, own in scores[row].items()
    }
    found = measurements(fields, failed)
    return Draws(rows, columns_of(found, rows, list(scores[rows[0]])))


def answers(right: int, of: int = 400, first: int = 0) -> list[float]:
    """So many right ones, from the first on."""
    return [100.0 * (first <= number < first + right) for number in range(of)]


def test_pairs_are_those_asked_for_each_once():
    rows = ["a", "b", "c"]
    assert pairs_of(rows, ()) == []
    assert pairs_of(rows, ["b"]) == [("a", "b"), ("c", "b")]
    assert pairs_of(rows, ["b", "a", "b"]) == [("a", "b"), ("c", "b"), ("c", "a")]
    assert pairs_of(rows, ["all"]) == [("b", "a"), ("c", "a"), ("c", "b")]
    with pytest.raises(ReportError, match=r"no row `d` .* one of a, b, c, or `all`"):
        pairs_of(rows, ["d"])


def test_a_pairs_interval_and_p_are_those_of_its_paired_differences():
    draws = drawn({"one": {"A": answers(300)}, "two": {"A": answers(310, first=20)}})
    line = compare_pairs(draws, [("two", "one")]).set_index("benchmark").loc[AVERAGE]
    # 20 lost, 30 gained.
    error = 100 * math.sqrt((50 / 400 - 0.025**2) / 399)
    assert line["difference"] == 2.5
    assert line["high"] - line["low"] == pytest.approx(2 * 1.96 * error + 2 * 100 / 400, rel=0.05)
    z = 2.5 / error
    assert line["p"] == line["p_holm"] == pytest.approx(2 * stats.norm.sf(z), rel=0.25)
    assert (line["p"] < 0.05) == (line["low"] > 0)
    back = compare_pairs(draws, [("one", "two")]).set_index("benchmark").loc[AVERAGE]
    assert (back["difference"], back["p"]) == (-2.5, pytest.approx(line["p"], rel=0.1))


def test_rows_that_agree_differ_by_nothing_and_may_by_some():
    draws = drawn({"one": {"A": answers(300)}, "two": {"A": answers(300)}})
    line = compare_pairs(draws, [("two", "one")]).set_index("benchmark").loc[AVERAGE]
    assert (line["difference"], line["p"]) == (0.0, 1.0)
    # Clopper and Pearson's limit of none: 0.025^(1 / n), 3.69 / n.
    assert line["low"] == pytest.approx(-100 * 3.69 / 400, rel=0.05)


def test_holms_correction_is_over_the_pairs_asked_for_and_over_all_benchmarks():
    scores = {row: {"A": answers(right), "B": answers(300)} for row, right in (("a", 300), ("b", 290), ("c", 280))}
    draws = drawn(scores)
    asked = (["c"], ["c", "a"], ["all"])
    one, both, all_pairs = (compare_pairs(draws, pairs_of(list(scores), own)) for own in asked)
    assert len(one[one["benchmark"] == AVERAGE]) == 2
    assert len(both[both["benchmark"] == AVERAGE]) == 3
    averages = one[one["benchmark"] == AVERAGE]
    assert averages["p_holm"].min() == pytest.approx(2 * averages["p"].min())
    single = all_pairs[all_pairs["benchmark"] != AVERAGE]
    # 20 lost of none gained, 2 x 2^-20, over six tests: three pairs on two benchmarks.
    assert single["p_holm"].min() == pytest.approx(6 * 2 / 2**20)


def test_sentences_name_the_benchmarks_that_differ_and_what_is_left_out():
    scores = {
        "a": {"A": answers(300), "B": answers(300)},
        "b": {"A": answers(270), "B": answers(300)},
        "c": {"A": answers(300), "B": answers(300)},
    }
    draws = drawn(scores, failed=[("c", "B")])
    sentences = pair_sentences(compare_pairs(draws, pairs_of(list(scores), ["a"])), 0.05)
    assert sentences[0].startswith("b against a: −3.8 (−5.")
    assert sentences[0].endswith(", p < .001; A −7.5.")
    assert sentences[1].startswith("c against a: +0.0 (")
    assert "over 1 of 2 benchmarks, p = 1.000." in sentences[1]
    assert sentences[2].startswith("Differences are between mean scores")
    assert "corrected for 2 pairs (Holm)" in sentences[2]
    assert pair_sentences(compare_pairs(draws, []), 0.05) == ()


def table_of(scores: dict[str, dict[str, list[float]]], budgets: dict[str, float]) -> Table:
    """All rows but the first compete."""
    means = {row: {name: float(np.mean(own)) for name, own in columns.items()} for row, columns in scores.items()}
    base, *_ = means
    rows = [
        Row(
            title=row,
            kind="score",
            values=own | {AVERAGE: 100 * sum(own.values()) / sum(means[base].values())},
            competes=row != base,
        )
        for row, own in means.items()
    ]
    return Table(
        caption="",
        columns=tuple(means[base]),
        digits=dict.fromkeys(means[base], 1),
        rows=tuple(rows),
        baseline=base,
        notes=(),
        summary=pd.DataFrame({"token_share": budgets}),
        budgets=budgets,
    )


def test_bold_are_the_best_of_a_budget_and_all_not_told_apart_from_it():
    scores = {
        "base": {"A": answers(400)},
        "most": {"A": answers(330)},
        "half, best": {"A": answers(300)},
        "half, near": {"A": answers(297)},
        "half, far": {"A": answers(250)},
        "alone": {"A": answers(100)},
    }
    budgets = dict(zip(scores, (100.0, 75.0, 50.0, 50.0, 50.0, 10.0), strict=True))
    # 3 lost and none gained: p = 0.25; 50: nothing. Rows of other budgets have nobody to be better than.
    best = best_of(table_of(scores, budgets), drawn(scores), 0.05)
    assert best["A"] == best[AVERAGE] == {"half, best", "half, near"}


def test_rows_that_print_alike_are_bold_together_even_if_documents_cant_be_compared():
    scores = {
        "base": {"A": answers(400)},
        "one": {"A": answers(300)},
        "two": {"A": answers(300)},
        "three": {"A": answers(299)},
    }
    table = table_of(scores, {"base": 100.0, "one": 50.0, "two": 50.0, "three": 50.0})
    failed = [(row, "A") for row in ("one", "two", "three")]
    assert best_of(table, drawn(scores, failed), 0.05)["A"] == {"one", "two"}
