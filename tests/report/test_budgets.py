"""Which budget of visual tokens a row of a report has, and what a report of several budgets says."""

import csv
import math
import re

import numpy as np
import pandas as pd
import pytest

from vico_eval.budgets import asked_share, parse_budgets, share_text, told
from vico_eval.errors import ConfigError
from vico_eval.report import write_report
from vico_eval.report.budgets.groups import missed_budgets, row_budgets
from vico_eval.report.budgets.iso_accuracy import falls_below, iso_sentences
from vico_eval.report.budgets.picture import draw_budgets
from vico_eval.report.figures.labels import spread

from .conftest import write_tiny_run


def test_budgets_are_shares_or_tokens_of_how_many_the_largest_first():
    assert parse_budgets("0.25, 0.5,0.1", "--budgets") == (0.5, 0.25, 0.1)
    assert parse_budgets("64/576,64/256", "--budgets") == (0.25, 64 / 576)
    assert parse_budgets("192,128,64/576", "--budgets") == (192 / 576, 128 / 576, 64 / 576)
    assert [share_text(share) for share in (0.5, 192 / 576, 0.125, 0.1)] == ["50%", "33.3%", "12.5%", "10%"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("192,64", r"so 192 tokens alone is not a budget. Give the total as well, as papers do \(192,128,64/576"),
        ("0.5,1.5", r"expected shares of the visual tokens between 0 and 1, or kept/total counts, as in .*576\.$"),
        ("1", "expected shares of the visual tokens between 0 and 1"),
        ("0", "expected shares"),
        ("half", "expected shares"),
        ("5/0", "expected shares"),
        ("", "expected shares"),
        ("0.5,1/2", "repeats a share"),
    ],
)
def test_what_is_no_budget_is_refused(given, message):
    with pytest.raises(ConfigError, match=f"(?i){message}"):
        parse_budgets(given, "--budgets")


def test_what_a_method_is_told_says_what_it_was_asked():
    # A compressed tile keeps a quarter: two thirds of them leave 1/3 + 2/3 x 1/4 = 1/2.
    assert told(0.5, "ratio") == pytest.approx(2 / 3)
    assert asked_share("pool", {"ratio": 2 / 3, "ratio_from": None}) == pytest.approx(0.5)
    assert asked_share("downsample", {"tile_keep_ratio": 0.5}) == told(0.5, "tile_keep_ratio") == 0.5
    assert asked_share("fastv", {"target_ratio": 0.25, "layer": 2}) == told(0.25, "target_ratio") == 0.25
    assert asked_share("fastv", {"target_ratio": None}) is None
    assert asked_share("vico+fastv", {"target_ratio": 0.5}) is None  # half of what ViCO leaves
    assert asked_share("another", {"ratio": 0.5}) is None


def test_rows_are_of_the_budget_they_were_asked_for_or_come_near_to():
    cells = pd.DataFrame(
        [
            ("Vanilla", math.nan),
            ("FastV", 55.04),
            ("Downsample", 55.04),
            ("DivPrune (25%)", 25.0),
            ("ViCO", math.nan),
            ("Single", math.nan),
            ("All", math.nan),
            ("Foreign", math.nan),
        ],
        columns=["row", "asked_share"],
    )
    # 55.0 x 0.05 = 2.75: 57.7 is of that budget and 52.2 is not; All comes near to 25 and Single to no one.
    used = pd.Series([100.0, 55.0, 51.6, 25.0, 57.7, 30.0, 25.9, math.nan], index=cells["row"])
    budgets = row_budgets(cells, used, "Vanilla")
    assert list(budgets) == list(cells["row"])
    foreign = budgets.pop("Foreign")
    assert math.isnan(foreign)
    assert budgets == {
        "Vanilla": 100.0,
        "FastV": 55.0,
        "Downsample": 55.0,
        "ViCO": 55.0,
        "DivPrune (25%)": 25.0,
        "All": 25.0,
        "Single": 30.0,
    }
    assert row_budgets(cells, used.replace(57.7, 57.8), "Vanilla")["ViCO"] == 57.8
    # Of those that were asked, one used 6% less.
    assert missed_budgets(budgets, cells, used) == {"Downsample": 51.6}


def fastv(folder, name, right, compressed, share):
    arguments = {"target_ratio": share, "ratio_from": None}
    asked = {"model": "fastv_internvl", "model_args": f"pretrained=vico-tiny,target_ratio={share}"}
    command = ["python", "-m", "lmms_eval", "--model", "fastv_internvl"]
    record = {"title": "FastV", "method": "fastv", "method_args": arguments, "command": command}
    return write_tiny_run(folder, name, right, compressed, config=asked, **record)


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """Vanilla has 4 of 4 right; FastV 3 with 62.5% of the tokens and 2 with a quarter; ViCO 3 with 62.5%."""
    folder = tmp_path_factory.mktemp("swept")
    runs = [
        fastv(folder, "fastv-0.25", 2, 4, 0.25),
        write_tiny_run(folder, "vico", 3, 2, title="ViCO"),
        write_tiny_run(folder, "vanilla", 4, 0, title="Vanilla"),
        fastv(folder, "fastv-0.625", 3, 2, 0.625),
    ]
    return write_report([(None, run) for run in runs], table="tiny", out=folder / "report")


def test_runs_of_a_title_at_several_budgets_are_rows_grouped_by_budget(swept):
    assert list(swept.table.summary.index) == ["Vanilla", "ViCO", "FastV (62.5%)", "FastV (25%)"]
    assert swept.table.budgets == {"Vanilla": 100.0, "ViCO": 62.5, "FastV (62.5%)": 62.5, "FastV (25%)": 25.0}
    lines = swept.markdown.read_text().splitlines()
    firsts = [line.split("|")[1].strip() for line in lines if line.startswith("| ")]
    assert firsts[1:] == [
        *("**All visual tokens**", "Vanilla"),
        *("**Retain 62.5%**", "ViCO", "*compressed tiles*", "FastV", "*compressed tiles*"),
        *("**Retain 25%**", "FastV"),
    ]
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1
    latex = swept.latex.read_text()
    assert len(re.findall(r"\\multicolumn\{\d+\}\{c\}\{\\textit\{Retain 62\.5\\%\}\} ", latex)) == 1
    assert "\\midrule\n  \\midrule" not in latex


def test_budgets_at_which_retention_falls_below_a_mark(swept):
    with swept.budgets.open(newline="") as file:
        found = {float(line["retention"]): line for line in csv.DictReader(file)}
    # From 100% at all tokens to 75% at 62.5% of them: 1 and 5 points are 1.5 and 7.5% of the tokens.
    assert float(found[99.0]["tokens"]) == pytest.approx(98.5)
    assert float(found[95.0]["tokens"]) == pytest.approx(92.5)
    assert {line["method"] for line in found.values()} == {"FastV"}
    for line in found.values():
        assert float(line["low"]) < float(line["tokens"]) < float(line["high"]) <= 100
    (sentence,) = [line for line in swept.table.comparison if line.startswith("FastV retains 99% with 98.5%")]
    assert "and 95% with 92.5% of the visual tokens (" in sentence


def test_the_first_fall_counts_and_none_is_0():
    tokens = np.array([100.0, 50.0, 20.0])
    # From 100 to 90 over 50%: 95 is at 75. The second line rises again, the third one never falls.
    lines = np.array([[100.0, 90.0, 80.0], [100.0, 90.0, 99.0], [100.0, 99.0, 95.0], [100.0, 98.0, 92.0]])
    assert falls_below(tokens, lines, 95.0) == pytest.approx([75, 75, 0, 35])


def test_a_method_above_the_mark_at_every_budget_is_said_to_be():
    columns = ["method", "retention", "budgets", "least_tokens", "tokens", "low", "high"]
    frame = pd.DataFrame(
        [("A", 99.0, 2, 20.0, 31.0, 0.0, 42.0), ("A", 95.0, 2, 20.0, math.nan, 0.0, 0.0)], columns=columns
    )
    assert iso_sentences(frame)[0] == (
        "A retains 99% with 31.0% of the visual tokens (below 20.0% to 42.0%) and 95% down to 20.0% of the visual "
        "tokens, the smallest budget run (below 20.0%)."
    )
    assert iso_sentences(None) == ()


def test_names_beside_lines_keep_apart():
    assert spread([0.9, 0.5, 0.1], 0.1) == pytest.approx([0.9, 0.5, 0.1])
    assert spread([0.52, 0.5, 0.1], 0.1) == pytest.approx([0.56, 0.46, 0.1])
    assert spread([0.5, 0.5, 0.5], 0.1) == pytest.approx([0.6, 0.5, 0.4])
    assert spread([0.1, 0.05], 0.1, 0.05, 1.0) == pytest.approx([0.15, 0.05])
    assert spread([1.0, 0.99], 0.1, 0.05, 0.95) == pytest.approx([0.95, 0.85])


def test_a_picture_has_a_line_a_method_and_its_band(swept):
    assert {"budgets.pdf", "budgets.png", "budgets-column.pdf", "benchmarks.png"} <= {
        path.name for path in swept.figures
    }
    uncertainty = pd.read_csv(swept.uncertainty)
    (axes,) = draw_budgets(swept.table, uncertainty).axes
    drawn = [line.get_xydata().tolist() for line in axes.lines if line.get_marker() != "None"]
    assert drawn == [[[100.0, 100.0], [62.5, 75.0], [25.0, 50.0]], [[62.5, 75.0]]]
    assert len(axes.collections) == 1
    assert [text.get_text() for text in axes.texts] == ["ViCO", "FastV"]
