"""The benchmark of intervals invents evaluations with the retention that it says, and counts what holds it."""

import json
from pathlib import Path

import numpy as np
import pytest

from vico_eval.bench.measurements import coverage
from vico_eval.bench.measurements.coverage import RETENTIONS, SETTINGS


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("retention", RETENTIONS)
def test_evaluations_have_the_retention_that_they_say(name, retention):
    setting = SETTINGS[name]
    columns = coverage._columns(setting, retention, 100, np.random.default_rng(0))
    assert len(columns) == len(setting.benchmarks) + (setting.twice is not None)
    base, own = (
        np.mean([column.values[:, rows].mean() for column in columns]) for rows in (slice(100), slice(100, 200))
    )
    # 100 x 8 x 500 documents leave an error of 0.1, as many of 50 or of 500 about 100 pictures 0.2.
    assert base == pytest.approx(100 * setting.score, abs=1)
    assert 100 * own / base == pytest.approx(100 * retention, abs=0.5)


def test_pictures_and_columns_are_shared_as_their_settings_say():
    ten = coverage._columns(SETTINGS["10 pictures"], 0.95, 2, np.random.default_rng(0))
    assert [column.num_clusters for column in ten] == [500] * 7 + [10]
    assert [column.cluster_points for column in ten] == [0.2] * 7 + [10]
    assert len(np.unique(np.concatenate([column.clusters for column in ten]))) == 3510
    *_, last, again = coverage._columns(SETTINGS["two columns of one set"], 0.95, 2, np.random.default_rng(0))
    assert np.array_equal(last.clusters, again.clusters)
    assert 0.8 < (last.values == again.values).mean() < 1


def test_shares_are_counted_by_hand():
    # Low, high, p of "less than", p of "at least": the first holds 99, the second lies above it, the third below.
    lines = np.array([[98.0, 99.5, 0.2, 0.6], [99.2, 101.0, 0.01, 0.99], [90.0, 95.0, 0.9, 0.01]])
    rates = coverage._rates(lines, 0.99)
    third = pytest.approx(1 / 3)
    assert [rates[key] for key in ("coverage", "too_high", "too_low", "says_at_least", "says_less")] == [third] * 5
    assert rates["width"] == pytest.approx((1.5 + 1.8 + 5) / 3)


def test_a_few_evaluations_make_a_record(benchmark, tmp_path, monkeypatch):
    monkeypatch.setattr(coverage, "SETTINGS", {"8 x 50": SETTINGS["8 x 50"]})
    status, _ = benchmark("coverage.py", "--evaluations", "20", "--out", str(tmp_path))
    assert status == 0
    record = json.loads((tmp_path / "retention.json").read_text())
    for retention in ("99", "95"):
        rates = record["settings"]["8 x 50"][retention]
        assert rates["coverage"] >= 0.75  # 19 of 20 are expected
        # Some 8% of the baseline: 3.92 standard errors of 100 sqrt(0.08 / 400) / 0.75, and what may be unseen.
        assert 6 < rates["width"] < 11
    assert "| 8 x 50 | 8 benchmarks of 50 documents | 99% |" in (tmp_path / "README.md").read_text()


def test_committed_records_show_intervals_that_hold():
    folder = Path(__file__).parents[3] / "results" / "measured" / "coverage"
    records = {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}
    assert (folder / "README.md").read_text() == coverage.readme(records)
    for record in records.values():
        assert list(record["settings"]) == list(SETTINGS)
        allowed = 2 * coverage._error(record["evaluations"])
        for name, own in record["settings"].items():
            for retention in ("99", "95"):
                assert 0.94 - allowed <= own[retention]["coverage"] <= 0.97 + allowed, (name, retention)
            assert max(own["99"]["says_at_least"], own["99"]["says_less"]) <= 0.05 + allowed, name
