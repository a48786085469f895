import pytest

from vico_eval.errors import ReportError
from vico_eval.report.published import (
    printed_averages,
    printed_values,
    published_csv,
    published_table,
    read_published,
)
from vico_eval.report.tables import AVERAGE, relative_retention, with_average
from vico_eval.report.writers import to_markdown

# Recomputed from printed scores, these differ from the printed average by more than rounding to one decimal allows.
LAST_DIGIT = {
    (1, "InternVL3.5-241B-MoE"): (99.549, 99.6),
    (2, "InternVL3.5-4B"): (99.283, 99.2),
    (3, "FastV"): (95.956, 95.9),
    (6, "InternVL3.5-2B"): (100.656, 100.6),
}


def recomputed_averages():
    """Table, what tells the row within the table, recomputed and printed average of every row but the baselines."""
    for number in (1, 2, 3, 5, 6):
        printed = read_published(published_csv("vico", number))
        for model, own in printed.groupby("model", sort=False):
            baseline = "Vanilla" if number == 3 else "baseline"
            retention = relative_retention(printed_values(own, "score"), baseline)
            for variant, value in printed_averages(own, "relative_average").items():
                if variant != baseline:
                    yield number, variant if number == 3 else model, retention[variant], value


def test_averages_recomputed_from_the_printed_scores_are_the_printed_ones():
    rows = list(recomputed_averages())
    assert len(rows) == 24
    agreeing = [(number, name) for number, name, recomputed, value in rows if f"{recomputed:.1f}" == f"{value:.1f}"]
    assert len(agreeing) == 20
    for number, name, recomputed, value in rows:
        if (number, name) not in agreeing:
            expected, expected_printed = LAST_DIGIT[number, name]
            assert recomputed == pytest.approx(expected, abs=5e-4)
            assert value == expected_printed


@pytest.mark.parametrize("number", [1, 2, 3, 5, 6])
def test_averages_of_the_ratios_are_their_plain_means(number):
    for _, own in read_published(published_csv("vico", number)).groupby("model"):
        means = with_average(printed_values(own, "compressed_ratio"))[AVERAGE]
        for variant, value in printed_averages(own, "compressed_ratio").items():
            assert means[variant] == pytest.approx(value, abs=0.0501)


def test_table_3_is_printed_as_in_the_paper():
    table = published_table(published_csv("vico", 3), baseline="Vanilla", caption="ViCO, Table 3")
    text = to_markdown(table)
    for line in (
        "| Vanilla | 91.3 | 86.5 | 79.1 | 77.6 | 84.0 | 84.0 | 68.5 | 59.5 | 100.0% |",
        "| Vanilla + VIR | 57.9 | 78.0 | 69.4 | 71.1 | 75.1 | 83.5 | 64.7 | 54.7 | 87.9% |",
        "| FastV | 87.5 | 84.0 | 71.6 | 76.9 | 81.0 | 83.0 | 64.2 | 56.8 | 96.0% |",  # the paper prints 95.9
        "| *compressed tiles* | *69%* | *36%* | *12%* | *65%* | *78%* | *32%* | *75%* | *88%* | *56.9%* |",
        "| *compressed tiles* | *60%* | *47%* | *21%* | *58%* | *71%* | *42%* | *67%* | *74%* | *55.0%* |",
    ):
        assert line in text.splitlines()


def test_mme_enters_averages_divided_by_28():
    printed = read_published(published_csv("vico", 1))
    raw = printed[(printed["benchmark"] == "MME") & (printed["metric"] == "score")]["value"]
    assert raw.min() > 2000
    for _, own in printed.groupby("model"):
        assert printed_values(own, "score")["MME"].between(70, 100).all()


def test_a_table_of_several_models_needs_one_of_them():
    with pytest.raises(ReportError, match=r"no model None; expected one of .*InternVL3.5-8B"):
        published_table(published_csv("vico", 1), baseline="baseline", caption="Table 1")


def test_a_file_with_other_columns_is_refused(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("value,unit\n1,points\n")
    with pytest.raises(ReportError, match="has the columns value, unit; expected table, model"):
        read_published(path)
    with pytest.raises(ReportError, match="can't be read"):
        read_published(tmp_path / "missing.csv")
