"""Intervals, tests and verdicts against numbers that are known otherwise."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from vico_eval.errors import ReportError
from vico_eval.report.paired.columns import columns_of
from vico_eval.report.paired.draws import Draws
from vico_eval.report.paired.equality import holm
from vico_eval.report.stats.loyalty import loyalty
from vico_eval.report.stats.measurements import Measurements
from vico_eval.report.stats.retention import AVERAGE, retention_standard_error
from vico_eval.report.stats.sentences import comparison_sentences
from vico_eval.report.stats.uncertainty import Criterion, compare_with_baseline

from .conftest import measurements

NAN = float("nan")


def measured(
    scores: dict[tuple[str, int, str], list[float]], media: list[str | None] | None = None, failed=()
) -> Measurements:
    """Documents' scores by row, run and benchmark."""
    fields = {
        (row, run, benchmark): [
            {
                "answer": "7",
                "score": NAN if (row, benchmark) in failed else score,
                "media": media[doc_id] if media else None,
            }
            for doc_id, score in enumerate(own)
        ]
        for (row, run, benchmark), own in scores.items()
    }
    return measurements(fields, failed)


def measured_with(scores: dict[tuple[str, int, str], list[float]], media: dict[str, list[str]]) -> Measurements:
    """The same with pictures by benchmark."""
    fields = {
        (row, run, name): [
            {"answer": "7", "score": score, "media": own} for score, own in zip(values, media[name], strict=True)
        ]
        for (row, run, name), values in scores.items()
    }
    return measurements(fields)


def compare(found: Measurements, **criterion) -> pd.DataFrame:
    """Lines by row and benchmark."""
    return compare_with_baseline(drawn(found), "base", Criterion(**criterion)).set_index(["row", "benchmark"])


def drawn(found: Measurements) -> Draws:
    rows, benchmarks = (list(found.cells[name].unique()) for name in ("row", "benchmark"))
    return Draws(rows, columns_of(found, rows, benchmarks))


def right_and_wrong(both: int, lost: int, gained: int, neither: int) -> dict[tuple[str, int, str], list[float]]:
    """Scores of `base` and `vico` on benchmark A, by what became of the documents."""
    base = [100.0] * (both + lost) + [0.0] * (gained + neither)
    vico = [100.0] * both + [0.0] * lost + [100.0] * gained + [0.0] * neither
    return {("base", 0, "A"): base, ("vico", 1, "A"): vico}


def of_two(both, lost, gained, neither, media=None) -> pd.Series:
    """The `Avg.` line of such scores."""
    return compare(measured(right_and_wrong(both, lost, gained, neither), media)).loc[("vico", AVERAGE)]


def test_the_interval_is_that_of_the_delta_method_where_documents_are_many():
    found = measured(right_and_wrong(2700, 300, 300, 700))
    scores = pd.DataFrame({"A": [75.0, 75.0]}, index=["base", "vico"])
    expected = retention_standard_error(found.values, scores, "base")["vico"]
    line = compare(found).loc[("vico", AVERAGE)]
    assert line["retention"] == 100.0
    assert line["standard_error"] == pytest.approx(expected, rel=0.04)  # 4000 resamples leave 1.1%
    # Half a document more at either end: 0.5 / 3000 of 100% each, beside a width of 3.92 standard errors (3.2 points).
    assert line["high"] - line["low"] == pytest.approx(2 * 1.96 * expected + 1 / 30, rel=0.04)
    assert line["low"] < 100 < line["high"]


def test_the_average_weighs_benchmarks_alike():
    generator = np.random.default_rng(0)
    scores = {
        (row, run, benchmark): list(100.0 * (generator.random(size) < share))
        for benchmark, size in (("A", 2000), ("B", 400))
        for run, (row, share) in enumerate((("base", 0.8), ("vico", 0.7)))
    }
    found = measured(scores)
    means = pd.DataFrame(
        {
            benchmark: [np.mean(scores["base", 0, benchmark]), np.mean(scores["vico", 1, benchmark])]
            for benchmark in "AB"
        },
        index=["base", "vico"],
    )
    line = compare(found).loc[("vico", AVERAGE)]
    assert line["retention"] == pytest.approx(100 * means.loc["vico"].mean() / means.loc["base"].mean())
    expected = retention_standard_error(found.values, means, "base")["vico"]
    assert line["standard_error"] == pytest.approx(expected, rel=0.04)
    assert line["documents"] == 2400


def test_copies_of_a_picture_say_no_more_than_the_picture():
    once = right_and_wrong(120, 20, 10, 50)
    five_times = {key: list(np.repeat(values, 5)) for key, values in once.items()}
    pictures = [f"picture {number // 5}" for number in range(1000)]
    alone = compare(measured(once)).loc[("vico", "A")]
    together = compare(measured(five_times, pictures)).loc[("vico", "A")]
    unknown = compare(measured(five_times)).loc[("vico", "A")]
    assert together["retention"] == pytest.approx(alone["retention"])
    # Images with several documents, wherever these differ, err on the wide side by n / (n - 1).
    assert together["standard_error"] == pytest.approx(alone["standard_error"] * 200 / 199, rel=1e-3)
    for end in ("low", "high"):
        room = (alone[end] - alone["retention"]) * 200 / 199
        assert together[end] - together["retention"] == pytest.approx(room, rel=1e-3)
    assert alone["p_less"] < together["p_less"] < 1.02 * alone["p_less"]
    assert (together["documents"], together["pictures"]) == (1000, 200)
    assert unknown["standard_error"] == pytest.approx(alone["standard_error"] / math.sqrt(5), rel=0.05)
    assert math.isnan(unknown["pictures"])
    # Five copies are no five pairs of answers either: the test sees 200 sums, each of 0, 500 or -500.
    assert (unknown["test"], together["test"]) == ("McNemar, exact", "paired t over images")
    differences = np.array([0] * 170 + [-500] * 20 + [500] * 10)
    assert together["p_equal"] == pytest.approx(stats.ttest_1samp(differences, 0).pvalue)


def test_documents_without_a_picture_share_none():
    line = of_two(60, 10, 5, 25, media=["one", "one", *[""] * 98])
    assert line["pictures"] == 99


def test_one_document_without_an_account_makes_pictures_unknown():
    assert math.isnan(of_two(60, 10, 5, 25, media=[None, *["one"] * 99])["pictures"])


def test_rows_that_agree_everywhere_still_have_an_interval():
    # Jeffreys' limit of none: 97.5% of a gamma distribution of shape 1/2 are below 2.51 documents, here of 36.
    lost = stats.gamma(0.5).ppf(0.975)
    line = of_two(36, 0, 0, 0)
    assert (line["low"], line["high"]) == pytest.approx((100 - 100 * lost / 36, 100 + 100 * lost / 36), abs=0.3)
    # Of two benchmarks it is the root mean square of a document's weight: 1 / 50 and 1 / 200, in a mean of two.
    scores = {(row, run, "A"): [100.0] * 50 for run, row in enumerate(("base", "vico"))}
    scores |= {(row, run, "B"): [100.0] * 200 for run, row in enumerate(("base", "vico"))}
    unit = 100 * math.sqrt((0.02**2 + 0.005**2) / 2) / 2
    assert compare(measured(scores)).loc[("vico", AVERAGE), "low"] == pytest.approx(100 - lost * unit, abs=0.1)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ((900, 0, 0, 100), "retains at least 99% (p < .05)"),
        ((900, 100, 20, 0), "retains less than 99% (p < .05)"),
        # 95% of the limits above are below 1.92 documents, so "at least" takes 192 of which none has changed.
        ((36, 0, 0, 0), "too few documents to tell"),
        ((210, 0, 0, 0), "retains at least 99% (p < .05)"),
        ((180, 0, 0, 0), "too few documents to tell"),
        # One lost of 320: its upper limit is about 4, 1.3% of them.
        ((319, 1, 0, 80), "too few documents to tell"),
        ((99, 1, 0, 0), "too few documents to tell"),
    ],
)
def test_verdicts(counts, expected):
    found = of_two(*counts)["verdict"]
    assert found == expected or found.startswith(f"{expected} (a loss of ")


def test_the_detectable_loss_is_found_with_80_percent_power():
    # 8% change on either side. Standard error: 100 sqrt(0.16 / 500) / 0.8 = 2.24; (1.645 + 0.842) x 2.24 + 1 = 6.6.
    line = of_two(360, 40, 40, 60)
    assert line["detectable_loss"] == pytest.approx(6.6, rel=0.06)
    assert (
        line["verdict"]
        == f"too few documents to tell (a loss of {line['detectable_loss']:.1f}% is detectable with 80% power)"
    )
    assert of_two(360 * 4, 40 * 4, 40 * 4, 60 * 4)["detectable_loss"] == pytest.approx(1 + 5.6 / 2, rel=0.06)


def test_margin_and_level_decide_what_is_tested():
    found = measured(right_and_wrong(870, 30, 10, 90))  # 97.8% retained, standard error 0.7%
    assert "less than 99.5%" in compare(found, margin=99.5).loc[("vico", AVERAGE), "verdict"]
    assert compare(found, margin=96).loc[("vico", AVERAGE), "verdict"] == "retains at least 96% (p < .05)"
    assert (
        compare(found, margin=99.5, alpha=0.001)
        .loc[("vico", AVERAGE), "verdict"]
        .startswith("too few documents to tell")
    )
    with pytest.raises(ReportError, match=r"margin of 0\.99; expected a percentage"):
        Criterion(margin=0.99)
    with pytest.raises(ReportError, match="level of 5; expected a probability"):
        Criterion(alpha=5)


def test_a_benchmark_of_few_pictures_widens_the_average_by_what_it_weighs():
    """Seven benchmarks of 500 pictures, and one of 500 documents about 10 of them that change a little."""
    generator = np.random.default_rng(0)
    scores: dict[tuple[str, int, str], list[float]] = {}
    for name in "ABCDEFGH":
        base = generator.random(500) < 0.8
        scores["base", 0, name] = list(100.0 * base)
        scores["vico", 1, name] = list(100.0 * np.where(generator.random(500) < 0.04, ~base, base))
    pictures = {name: [f"{name} {number}" for number in range(500)] for name in "ABCDEFG"}
    many = pictures | {"H": [f"H {number}" for number in range(500)]}
    few = pictures | {"H": [f"H {number // 50}" for number in range(500)]}
    wide, narrow = (compare(measured_with(scores, media)) for media in (few, many))
    widths = [lines.loc[("vico", AVERAGE), "high"] - lines.loc[("vico", AVERAGE), "low"] for lines in (wide, narrow)]
    # An unseen change of a tenth of the benchmark would add 2.5 x 100 / 10 / 8 = 31 points to either side.
    assert widths[0] < 1.5 * widths[1]
    assert (wide.loc[("vico", "H"), "too_few"], narrow.loc[("vico", "H"), "too_few"]) == ("H", "")
    assert wide.loc[("vico", AVERAGE), "too_few"] == "H"


def test_draws_about_few_pictures_are_students():
    # Ten pictures with differences that are normal scores: those of a paired t with 9 degrees of freedom.
    differences = 10 * stats.norm.ppf((np.arange(10) + 0.5) / 10)
    found = drawn(measured({("base", 0, "A"): [50.0] * 10, ("vico", 1, "A"): list(50.0 + differences)}))
    pair = found.pair(1, 0, [0])
    error = differences.std(ddof=1) / math.sqrt(10)
    low, high = np.quantile(pair.own_draws - pair.other_draws, [0.025, 0.975])
    assert (high - low) / 2 == pytest.approx(stats.t(9).ppf(0.975) * error, rel=0.08)  # the normal's is 13% narrower
    assert (pair.own_spread - pair.other_spread).std() == pytest.approx(error, rel=0.04)


def test_columns_about_the_same_pictures_say_no_more_than_one():
    once = right_and_wrong(300, 40, 10, 50)
    twice = once | {(row, run, "B"): values for (row, run, _), values in once.items()}
    media = [f"picture {number}" for number in range(400)]
    alone = compare(measured(once, media)).loc[("vico", AVERAGE)]
    together = compare(measured(twice, media)).loc[("vico", AVERAGE)]
    apart = compare(measured_with(twice, {"A": media, "B": [f"other {own}" for own in media]})).loc[("vico", AVERAGE)]
    assert together["standard_error"] == pytest.approx(alone["standard_error"], rel=0.05)
    assert apart["standard_error"] == pytest.approx(alone["standard_error"] / math.sqrt(2), rel=0.05)
    assert (together["pictures"], together["documents"], apart["pictures"]) == (400, 800, 800)
    found = measured(twice, media)
    means = pd.DataFrame({name: found.values[name].mean() for name in "AB"})
    error = retention_standard_error(found.values, means, "base")["vico"]
    assert error == pytest.approx(together["standard_error"], rel=0.05)


def test_seeds_are_a_level_of_their_own():
    # Each seed gets other documents right, and the second one 10% more: 300 and 340 of 400.
    base = [100.0] * 400
    few, many = [100.0] * 300 + [0.0] * 100, [0.0] * 60 + [100.0] * 340
    scores = {("base", 0, "A"): base, ("random", 1, "A"): few, ("random", 2, "A"): many}
    line = compare(measured(scores)).loc[("random", "A")]
    values = np.mean([few, many], axis=0)
    of_documents = values.std(ddof=1) / math.sqrt(400)
    of_seeds = np.std([75.0, 85.0], ddof=1) / math.sqrt(2)
    assert line["standard_error"] == pytest.approx(math.hypot(of_documents, of_seeds), rel=0.05)


def test_mcnemars_test_by_hand():
    # 1 lost, 8 gained: 2 (1 + 9) / 2^9.
    assert compare(measured(right_and_wrong(10, 1, 8, 5))).loc[("vico", "A"), "p_equal"] == pytest.approx(20 / 512)
    assert compare(measured(right_and_wrong(10, 0, 0, 5))).loc[("vico", "A"), "p_equal"] == 1.0


def test_scores_between_right_and_wrong_get_a_paired_t():
    base, vico = [100.0, 50.0, 70.0, 20.0, 90.0], [90.0, 50.0, 20.0, 30.0, 80.0]
    line = compare(measured({("base", 0, "A"): base, ("vico", 1, "A"): vico})).loc[("vico", "A")]
    assert line["test"] == "paired t"
    assert line["p_equal"] == pytest.approx(stats.ttest_rel(vico, base).pvalue)


def test_what_can_not_be_compared_is_left_out_and_named():
    right, half = [100.0] * 50, [100.0, 0.0] * 25
    scores = {(row, run, benchmark): right for run, row in enumerate(("base", "vico", "short")) for benchmark in "ABCD"}
    scores |= {("vico", 1, "A"): half, ("base", 0, "C"): [NAN] * 50, ("base", 0, "E"): [100.0], ("vico", 1, "E"): [0.0]}
    del scores["short", 2, "B"]
    lines = compare(measured(scores, failed=[("vico", "D")]))
    vico = lines.loc["vico"]
    assert list(vico["left_out"]) == [
        *("", "", "no score by document", "vico has documents that could not be answered"),
        *(
            "only one document or image",
            "C (no score by document); D (vico has documents that could not be answered); "
            "E (only one document or image)",
        ),
    ]
    assert vico.loc[AVERAGE, "retention"] == 75.0  # of A and B
    assert vico["retention"].isna().to_list() == [False, False, True, True, True, False]
    assert lines.loc[("short", "B"), "left_out"] == "short was not run"
    assert lines.loc[("short", AVERAGE), "documents"] == 100  # of A and D


def test_a_row_of_several_runs_counts_by_its_mean_on_a_document():
    # The runs' mean is half of every document's score, so retention is 50% whichever documents are drawn; an eleventh
    # run that fails makes the mean unknown, not one over ten.
    right = [100.0] * 100
    scores = {("base", 0, "A"): right, ("random", 1, "A"): [100.0, 0.0] * 50, ("random", 2, "A"): [0.0, 100.0] * 50}
    line = compare(measured(scores)).loc[("random", "A")]
    assert line["retention"] == 50.0
    assert line["standard_error"] == pytest.approx(0.0, abs=1e-9)
    lines = compare(measured(scores | {("random", 3, "A"): [NAN] * 100}))
    assert lines.loc[("random", "A"), "left_out"] == "no score by document"


def test_there_is_no_percentage_of_a_baseline_without_a_point():
    lines = compare(measured({("base", 0, "A"): [0.0] * 9, ("vico", 1, "A"): [100.0] + [0.0] * 8}))
    assert lines["retention"].isna().all()
    sentences = comparison_sentences(lines.reset_index(), agreement(lines, "A"))
    assert sentences[0].startswith("vico: retention unknown")


def test_holms_correction_by_hand():
    # Smallest first: 3 x 0.01, 2 x 0.03, 1 x 0.04, but never below the one before.
    assert list(holm(pd.Series([0.01, 0.04, 0.03]))) == pytest.approx([0.03, 0.06, 0.06])
    assert list(holm(pd.Series([0.9, NAN, 0.8]))) == pytest.approx([1.0, NAN, 1.0], nan_ok=True)


def test_many_rows_make_a_verdict_harder_to_reach():
    # Alone, p is about .03; among nine others of which none stands out it must not be called significant.
    base = right_and_wrong(700, 60, 34, 206)
    alone = compare(measured(base)).loc[("vico", AVERAGE)]
    assert 0.01 < alone["p_less"] < 0.05
    assert alone["verdict"].startswith("retains less")
    others = {(f"other {number}", 2 + number, "A"): base["vico", 1, "A"] for number in range(9)}
    among = compare(measured(base | others)).loc[("vico", AVERAGE)]
    assert among["p_less"] == alone["p_less"]
    # At 0.05 / 10 the standard normal quantile is 2.576, not 1.645.
    assert among["detectable_loss"] - alone["detectable_loss"] == pytest.approx(
        (2.576 - 1.645) * alone["standard_error"], rel=0.15
    )
    assert among["verdict"].startswith("too few documents to tell")


def test_tests_of_single_benchmarks_are_corrected_for_their_number():
    scores = {}
    for name, gained in (("A", 8), ("B", 0), ("C", 1)):
        for (row, run, _), values in right_and_wrong(10, 1, gained, 5).items():
            scores[row, run, name] = values
    lines = compare(measured(scores)).loc["vico"]
    assert lines.loc["A", "p_equal_holm"] == pytest.approx(3 * 20 / 512)
    assert lines.loc[["B", "C"], "p_equal_holm"].tolist() == [1.0, 1.0]
    assert math.isnan(lines.loc[AVERAGE, "p_equal_holm"])


def test_a_benchmarks_interval_does_not_depend_on_the_others():
    scores = right_and_wrong(60, 10, 5, 25)
    both = {**{(row, run, "B"): values for (row, run, _), values in scores.items()}, **scores}
    alone, among = compare(measured(scores)), compare(measured(both))
    assert alone.loc[("vico", "A"), "low"] == among.loc[("vico", "A"), "low"]


def agreement(lines, benchmark):
    rows = lines.index.get_level_values("row").unique()
    return pd.DataFrame({"row": rows, "benchmark": AVERAGE, "same_answer": NAN, "lost": NAN, "gained": NAN})


def test_sentences_round_and_say_what_the_numbers_rest_on():
    scores = right_and_wrong(90, 10, 0, 0) | {("base", 0, "MME"): [NAN] * 100, ("vico", 1, "MME"): [NAN] * 100}
    found = measured(scores)
    agreements = loyalty(found, ["base", "vico"], ["A", "MME"], "base")
    sentences = comparison_sentences(compare_with_baseline(drawn(found), "base"), agreements)
    assert sentences[0].startswith("vico: 90.0% (8")
    assert sentences[0].endswith(
        ") over 1 of 2 benchmarks, retains less than 99% (p < .05); 100% same answers, 10 documents lost, 0 gained."
    )
    assert sentences[1] == "Left out for vico: MME (no score by document)."
    assert "the runs don't record shared images, so only documents scored together are clustered there" in sentences[2]
    assert "for a single row" in sentences[2]


def test_a_benchmark_that_the_baseline_scores_nothing_on_is_part_of_the_average():
    nothing = {(row, run, "B"): [0.0] * 100 for run, row in enumerate(("base", "vico"))}
    found = measured(right_and_wrong(90, 10, 0, 0) | nothing)
    frame = compare_with_baseline(drawn(found), "base")
    lines = frame.set_index("benchmark")
    assert lines.loc["B", "left_out"] == "the baseline scores 0"
    assert (lines.loc[AVERAGE, "retention"], lines.loc[AVERAGE, "documents"]) == (90.0, 200)
    sentences = comparison_sentences(frame, loyalty(found, ["base", "vico"], ["A", "B"], "base"))
    assert sentences[0].startswith("vico: 90.0% (8")
    assert "benchmarks" not in sentences[0]
