import numpy as np
import pytest
from scipy import stats

from vico_eval.report.figures.style import COLUMN, Sheet
from vico_eval.report.stats.retention import AVERAGE
from vico_eval.report.strata.calibration import area_under_curve, calibration_sentences, router_calibration
from vico_eval.report.strata.picture import draw_calibration

from .conftest import measurements

WEIGHTS = {"base": "a", "low": "b", "vico": "b", "other": "c"}


def calibration(by_benchmark, weights=WEIGHTS, compressed=4):
    """From the outcomes of baseline and of the compressed row and the scores of routers, by benchmark."""
    values, cells = {}, []
    for benchmark, (base, low, scores) in by_benchmark.items():
        outcomes = {"base": base, "pool": low, "low": low, "vico": base, "other": base}
        for run, (row, own) in enumerate((row, own) for row, own in outcomes.items() if row in weights):
            documents = [{"answer": "x", "score": float(score)} for score in own]
            if row in ("vico", "other"):
                documents = [one | {"p": p} for one, p in zip(documents, scores, strict=True)]
            values[row, run, benchmark] = documents
            cells.append((4, compressed if row in ("low", "pool") else 0 if row == "base" else 2))
    measured = measurements(values)
    measured.cells[["tiles", "compressed_tiles"]] = np.array(cells, dtype=float)
    return router_calibration(measured, weights, list(weights), list(by_benchmark), "base")


def total(frame, benchmark=AVERAGE):
    (found,) = frame[(frame["benchmark"] == benchmark) & frame["low"].isna()].to_dict("records")
    return found


def test_bins_and_losses_by_hand():
    # The last document is wrong to begin with, so compressing costs nothing there; the one before has no tile.
    base, low = [100, 100, 100, 100, 100, 0], [0, 100, 0, 100, 0, 0]
    frame = calibration({"X": (base, low, [0.05, 0.07, 0.5, 1.0, float("nan"), 0.0])})
    assert set(frame["row"]) == {"vico"}  # the other router's model has other losses
    bins = frame[(frame["benchmark"] == "X") & frame["low"].notna()]
    assert bins[["low", "high", "documents", "lost"]].to_numpy().tolist() == [
        [0.0, 0.1, 2, 50],
        [0.5, 0.6, 1, 100],
        [0.9, 1.0, 1, 0],
    ]
    own = total(frame, "X")
    assert (own["documents"], own["lost"]) == (4, 50)
    assert own["auc"] == 0.75  # of the four pairs of one lost and one kept, three are in order
    assert own["compressed"] == "low"


def test_the_average_compares_within_benchmarks():
    # In each benchmark the scores know; over both they would not, since all of Y's are lower.
    x = ([100] * 4, [0, 0, 100, 100], [0.8, 0.81, 0.9, 0.91])
    y = ([100] * 4, [0, 0, 100, 100], [0.1, 0.11, 0.2, 0.21])
    assert total(calibration({"X": x, "Y": y}))["auc"] == 1.0
    half = ([100] * 4, [0, 0, 100, 100], [0.2, 0.2, 0.1, 0.1])  # always wrong
    assert total(calibration({"X": x, "Y": half}))["auc"] == 0.5


def test_area_and_its_variance_against_scipy():
    rng = np.random.default_rng(0)
    lost, kept = rng.normal(0, 1, 60).round(1), rng.normal(0.7, 1, 90).round(1)
    found = area_under_curve(lost, kept)
    assert found.auc == pytest.approx(stats.mannwhitneyu(kept, lost).statistic / (60 * 90))
    drawn = [area_under_curve(rng.choice(lost, 60), rng.choice(kept, 90)).auc for _ in range(2000)]
    assert found.variance == pytest.approx(np.var(drawn), rel=0.15)


@pytest.mark.parametrize("lost", [[], [0.1, 0.2]])
def test_no_area_without_both_kinds(lost):
    base, low = [100, 100], [0, 0] if lost else [100, 100]
    own = total(calibration({"X": (base, low, [0.1, 0.2])}))
    assert np.isnan(own["auc"])
    assert calibration_sentences(calibration({"X": (base, low, [0.1, 0.2])}), "base") == ()


def test_without_a_row_that_compresses_every_tile_nothing_is_known():
    assert calibration({"X": ([100], [0], [0.5])}, compressed=3) is None
    assert calibration_sentences(None, "base") == ()


def test_one_lost_document_says_nothing_of_the_area():
    # Its error is unknown; a benchmark where more is known still counts, alone.
    one = ([100] * 3, [0, 100, 100], [0.9, 0.1, 0.2])
    two = ([100] * 4, [0, 0, 100, 100], [0.1, 0.11, 0.2, 0.21])
    frame = calibration({"X": one, "Y": two})
    assert np.isnan(total(frame, "X")["auc"])
    assert total(frame)["auc"] == 1.0
    assert all("nan" not in sentence for sentence in calibration_sentences(frame, "base"))


def test_each_model_has_its_own_row_that_compresses_every_tile():
    # As with `pool` on the base weights before ViCO's own all_compress.
    outcomes = {"X": ([100] * 4, [0, 0, 100, 100], [0.1, 0.11, 0.2, 0.21])}
    frame = calibration(outcomes, weights={"pool": "a", "other": "a", "low": "b", "vico": "b", "base": "b"})
    assert dict(zip(frame["row"], frame["compressed"], strict=True)) == {"other": "pool", "vico": "low"}


def test_the_sentence_says_area_and_interval():
    base, low = [100] * 40, [0] * 20 + [100] * 20
    scores = np.concatenate([np.linspace(0, 0.6, 20), np.linspace(0.3, 1, 20)])
    (sentence,) = calibration_sentences(calibration({"X": (base, low, scores)}), "base")
    assert sentence.startswith("vico: with probability 0.88 (0.7")
    assert "a document that base answers and low loses has a lower mean" in sentence


@pytest.mark.parametrize("sheet", [Sheet(), Sheet(width=COLUMN), Sheet(is_serif=True)])
def test_the_picture_has_a_falling_line_where_the_router_knows(sheet):
    base, low = [100] * 40, [0] * 20 + [100] * 20
    scores = np.concatenate([np.linspace(0, 0.6, 20), np.linspace(0.3, 1, 20)])
    figure = draw_calibration(calibration({"X": (base, low, scores)}), sheet)
    (axes,) = figure.axes
    lost = axes.containers[0].lines[0].get_ydata()
    assert lost[0] == 100
    assert lost[-1] == 0
    (bars,) = axes.containers[0].lines[2]
    (_, (low, high)), *_ = ((None, bar[:, 1]) for bar in bars.get_segments())
    first = int((scores[:20] < 0.1).sum())
    assert (low, high) == pytest.approx((100 * stats.binomtest(first, first).proportion_ci(0.95).low, 100))
    assert "AUC 0.88" in figure.legends[0].get_texts()[0].get_text()
