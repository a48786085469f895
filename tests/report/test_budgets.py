"""Which budget of visual tokens a row of a report has."""

import math

import pandas as pd
import pytest

from vico_eval.budgets import asked_share, parse_budgets, share_text, told
from vico_eval.errors import ConfigError
from vico_eval.report.stats.budgets import missed_budgets, row_budgets


def test_budgets_are_shares_or_tokens_of_how_many_the_largest_first():
    assert parse_budgets("0.25, 0.5,0.1", "--budgets") == (0.5, 0.25, 0.1)
    assert parse_budgets("64/576,192/576", "--budgets") == (192 / 576, 64 / 576)
    assert [share_text(share) for share in (0.5, 192 / 576, 0.125, 0.1)] == ["50%", "33.3%", "12.5%", "10%"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("192", r"for 192 tokens, say of how many, as in 192/576"),
        ("1", "expected shares of the visual tokens between 0 and 1"),
        ("0", "expected shares"),
        ("half", "expected shares"),
        ("5/0", "expected shares"),
        ("", "expected shares"),
        ("0.5,1/2", "names a share twice"),
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
        "Vanilla": 100.0, "FastV": 55.0, "Downsample": 55.0, "ViCO": 55.0,
        "DivPrune (25%)": 25.0, "All": 25.0, "Single": 30.0,
    }
    assert row_budgets(cells, used.replace(57.7, 57.8), "Vanilla")["ViCO"] == 57.8
    # Of those that were asked, one used 6% less.
    assert missed_budgets(budgets, cells, used) == {"Downsample": 51.6}
