import math

import numpy as np
import pandas as pd
import pytest

from vico_eval.errors import ReportError
from vico_eval.report.stats.retention import (
    AVERAGE,
    compressed_tile_ratio,
    paired_difference,
    relative_retention,
    retention_standard_error,
    run_spread,
    visual_token_share,
    with_average,
)

from .conftest import measurements


def cells(*lines, **columns) -> pd.DataFrame:
    """Lines of (row, run, benchmark, value of each column)."""
    return pd.DataFrame(lines, columns=["row", "run", "benchmark", *columns.get("names", ("score",))])


def documents(scores: dict[tuple[str, int, str], list[float]]) -> dict[str, pd.DataFrame]:
    """By benchmark, from scores by row, run and benchmark."""
    return measurements({key: [{"score": score, "answer": ""} for score in own] for key, own in scores.items()}).values


def test_retention_is_the_ratio_of_the_means():
    # base (80 + 20) / 2 = 50, vico (72 + 22) / 2 = 47: 94.0. The mean of the ratios would be (90 + 110) / 2 = 100.
    scores = pd.DataFrame({"DocVQA": [80.0, 72.0], "MME": [20.0, 22.0]}, index=["base", "vico"])
    assert relative_retention(scores, baseline="base")["vico"] == pytest.approx(94.0)


def test_retention_is_unknown_where_a_benchmark_is_missing():
    scores = pd.DataFrame({"DocVQA": [80.0, 72.0], "MME": [20.0, np.nan]}, index=["base", "vico"])
    retention = relative_retention(scores, baseline="base")
    assert retention["base"] == 100.0
    assert math.isnan(retention["vico"])


def test_there_is_no_percentage_of_zero():
    scores = pd.DataFrame({"DocVQA": [0.0, 72.0]}, index=["base", "vico"])
    assert relative_retention(scores, baseline="base").isna().all()


def test_an_unknown_baseline_lists_the_rows():
    scores = pd.DataFrame({"DocVQA": [80.0, 72.0]}, index=["base", "vico"])
    with pytest.raises(ReportError, match=r"no row `vanilla` .* the rows are base, vico"):
        relative_retention(scores, baseline="vanilla")


def test_tile_ratios_are_pooled_over_documents_and_averaged_over_benchmarks():
    names = ("tiles", "compressed_tiles")
    counted = cells(("vico", 0, "A", 10.0, 9.0), ("vico", 0, "B", 1000.0, 100.0), names=names)
    ratio = with_average(compressed_tile_ratio(counted)).loc["vico"]
    assert list(ratio) == [90.0, 10.0, 50.0]  # not 109 / 1010


def test_tile_ratio_is_unknown_without_accounts_or_tiles():
    names = ("tiles", "compressed_tiles")
    counted = cells(
        ("vico", 0, "A", np.nan, np.nan), ("vico", 0, "B", 0.0, 0.0), ("vico", 0, "C", 4.0, 1.0), names=names
    )
    ratio = with_average(compressed_tile_ratio(counted)).loc["vico"]
    assert ratio["C"] == 25.0
    assert ratio[["A", "B", AVERAGE]].isna().all()


def test_token_share_compares_with_the_baselines_tokens():
    # A single tile saves tokens although none of its own are compressed: 256 of 1792.
    counted = cells(("base", 0, "A", 1792.0), ("one tile", 0, "A", 256.0), names=("layer_tokens",))
    share = visual_token_share(counted, baseline="base")
    assert share.loc["base", "A"] == 100.0
    assert share.loc["one tile", "A"] == pytest.approx(100 / 7)


def test_paired_difference_and_its_standard_error():
    # A: differences -100, 0, 0, 0: mean -25, variance (75^2 + 3 x 25^2) / 3 = 2500, error sqrt(2500 / 4) = 25.
    # B: differences 0, -100: mean -50, variance 5000, error sqrt(5000 / 2) = 50.
    # Average: -37.5, error sqrt(25^2 + 50^2) / 2 = 27.95: each benchmark weighs the same, whatever its size.
    paired = paired_difference(
        documents(
            {
                ("base", 0, "A"): [100, 100, 0, 0],
                ("base", 0, "B"): [0, 100],
                ("vico", 1, "A"): [0, 100, 0, 0],
                ("vico", 1, "B"): [0, 0],
            }
        ),
        baseline="base",
    )
    assert list(paired.difference.loc["vico"]) == [-25.0, -50.0, -37.5]
    assert list(paired.standard_error.loc["vico"]) == pytest.approx([25.0, 50.0, math.sqrt(3125) / 2])
    assert list(paired.difference.loc["base"]) == [0, 0, 0]


def test_one_document_has_no_standard_error():
    paired = paired_difference(documents({("base", 0, "A"): [100], ("vico", 1, "A"): [0]}), baseline="base")
    assert paired.difference.loc["vico", "A"] == -100.0
    assert math.isnan(paired.standard_error.loc["vico", "A"])


def test_a_benchmark_without_document_scores_has_no_paired_difference():
    scores = {"A": [100, 0], "MME": [np.nan, np.nan]}
    rows = [("base", 0), ("vico", 1)]
    paired = paired_difference(
        documents({(*row, benchmark): own for benchmark, own in scores.items() for row in rows}), baseline="base"
    )
    assert paired.difference.loc["vico", "A"] == 0.0
    assert paired.difference.loc["vico", ["MME", AVERAGE]].isna().all()
    assert math.isnan(paired.standard_error.loc["vico", AVERAGE])


def test_several_runs_are_averaged_by_document_before_pairing():
    # The runs' mean is 50 on both documents: no spread between documents is left, though each run has some.
    frame = documents({("base", 0, "A"): [100, 100], ("random", 1, "A"): [100, 0], ("random", 2, "A"): [0, 100]})
    paired = paired_difference(frame, baseline="base")
    assert paired.difference.loc["random", "A"] == -50.0
    assert paired.standard_error.loc["random", "A"] == 0.0


def test_retention_error_follows_the_ratio_not_the_difference():
    # vico is half of base on every document: retention is 50% without any error, although the differences vary.
    frame = documents({("base", 0, "A"): [100, 40, 20], ("vico", 1, "A"): [50, 20, 10]})
    scores = pd.DataFrame({"A": [160 / 3, 80 / 3]}, index=["base", "vico"])
    error = retention_standard_error(frame, scores, baseline="base")
    assert error["vico"] == pytest.approx(0.0, abs=1e-9)
    assert paired_difference(frame, baseline="base").standard_error.loc["vico", "A"] > 10


def test_retention_error_agrees_with_a_bootstrap():
    generator = np.random.default_rng(0)
    base = 100.0 * (generator.random(400) < 0.8)
    vico = np.where(generator.random(400) < 0.1, 0.0, base)
    frame = documents({("base", 0, "A"): list(base), ("vico", 1, "A"): list(vico)})
    scores = pd.DataFrame({"A": [base.mean(), vico.mean()]}, index=["base", "vico"])
    error = retention_standard_error(frame, scores, baseline="base")["vico"]
    drawn = generator.integers(0, 400, size=(4000, 400))
    bootstrap = (100 * vico[drawn].mean(1) / base[drawn].mean(1)).std()
    assert error == pytest.approx(bootstrap, rel=0.05)  # 4000 draws leave 1%; an unpaired error would be twice as large


def test_spread_is_the_deviation_of_the_runs_retentions():
    # Runs of 40 and 44 against 80: 50% and 55%, sample standard deviation 5 / sqrt(2).
    scored = cells(("base", 0, "A", 80.0), ("random", 1, "A", 40.0), ("random", 2, "A", 44.0))
    spread = run_spread(scored, baseline="base")
    assert spread["random"] == pytest.approx(5 / math.sqrt(2))
    assert math.isnan(spread["base"])
