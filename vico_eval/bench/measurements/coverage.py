"""Coverage of a report's confidence intervals and error rates of its tests, over simulated evaluations.

Every evaluation has two rows, the baseline and another, whose documents are drawn at random. Retention is the same on
every benchmark, so the true retention is known. The report's own code computes intervals and verdicts. All pairs of
rows are in one table, so that they share the bootstrap weights and an extra pair costs only a matrix product.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from vico_eval.bench.records import origin, processor, records_table
from vico_eval.report.paired.columns import Column
from vico_eval.report.paired.draws import RESAMPLES, Draws
from vico_eval.report.stats.uncertainty import Criterion, retention_of

MARGIN = Criterion().margin / 100

RETENTIONS = (MARGIN, 0.95)
"""The true retentions: the margin, where either verdict is an error, and a lower one."""

_BATCH = 250
"""Number of pairs per table, which take about 300 MB."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Benchmark:
    """A simulated benchmark."""

    documents: int
    pictures: int | None = None
    """Number of images; None if each document has its own."""

    alike: float = 0.0
    """Share of an image's documents that have the same outcome."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """A kind of simulated evaluation."""

    title: str
    benchmarks: tuple[Benchmark, ...]
    score: float = 0.75
    """The baseline's score, 0-1."""

    gained: float = 0.03
    """Share of documents that only the other row answers correctly. The share that it loses follows from the
    retention."""

    twice: float | None = None
    """If set, a further column repeats the last benchmark on the same images, and this share of its documents has the
    same outcome."""

    seeds: int = 1
    seed_spread: float = 0.0
    """Standard deviation of a seed's effect on the other row's score, 0-1, the same on every benchmark."""


SETTINGS = {
    "8 x 500": Setting(title="8 benchmarks of 500 documents", benchmarks=(Benchmark(documents=500),) * 8),
    "8 x 50": Setting(title="8 benchmarks of 50 documents", benchmarks=(Benchmark(documents=50),) * 8),
    "ceiling": Setting(
        title="8 x 500, of which the baseline answers 97%",
        benchmarks=(Benchmark(documents=500),) * 8,
        score=0.97,
        gained=0.005,
    ),
    "only losses": Setting(
        title="8 x 500, none of them gained", benchmarks=(Benchmark(documents=500),) * 8, gained=0.0
    ),
    "shared pictures": Setting(
        title="8 x 500 about 100 pictures, half of them alike",
        benchmarks=(Benchmark(documents=500, pictures=100, alike=0.5),) * 8,
    ),
    "10 pictures": Setting(
        title="7 x 500, and 500 about 10 pictures, 3 in 10 alike",
        benchmarks=(*(Benchmark(documents=500),) * 7, Benchmark(documents=500, pictures=10, alike=0.3)),
    ),
    "10 documents": Setting(
        title="7 x 500, and 10 documents", benchmarks=(*(Benchmark(documents=500),) * 7, Benchmark(documents=10))
    ),
    "two columns of one set": Setting(
        title="7 x 500, of which one is asked twice, 8 in 10 alike",
        benchmarks=(Benchmark(documents=500),) * 7,
        twice=0.8,
    ),
    "one benchmark": Setting(title="1 x 500", benchmarks=(Benchmark(documents=500),)),
    "3 seeds": Setting(
        title="8 x 500, 3 seeds a standard error apart",
        benchmarks=(Benchmark(documents=500),) * 8,
        seeds=3,
        seed_spread=0.003,
    ),
}


def measure(evaluations: int) -> dict[str, Any]:
    """Measure coverage and error rates over a number of evaluations of each setting and true retention."""
    results: dict[str, dict[str, Any]] = {}
    with tqdm(total=len(SETTINGS) * len(RETENTIONS) * math.ceil(evaluations / _BATCH), unit="batch") as bar:
        for name, setting in SETTINGS.items():
            bar.set_description(name)
            results[name] = {"setting": setting.title}
            for place, retention in enumerate(RETENTIONS):
                found = []
                for start in range(0, evaluations, _BATCH):
                    # Each setting and retention has its own seed, independent of the others.
                    generator = np.random.default_rng([start, place, *name.encode()])
                    found.append(_intervals(setting, retention, min(_BATCH, evaluations - start), generator))
                    bar.update()
                results[name][f"{100 * retention:g}"] = _rates(np.concatenate(found), retention)
    return origin("benchmarks/coverage.py", ("vico-eval", "numpy", "scipy")) | {
        "processor": processor("cpu"),
        "threads": 1,
        "rounds": 1,
        "evaluations": evaluations,
        "resamples": RESAMPLES,
        "settings": results,
    }


def _intervals(setting: Setting, retention: float, number: int, generator: np.random.Generator) -> np.ndarray:
    """Return the results of simulated evaluations, [number, 4]: interval low and high (percent), and two p-values.

    The p-values are those of the tests for "at least" and for "less than" the margin.
    """
    draws = Draws([f"{place}" for place in range(2 * number)], _columns(setting, retention, number, generator))
    lines = []
    for pair in range(number):
        line = retention_of(draws, number + pair, pair, range(len(draws.columns)), 100 * MARGIN)
        lines.append([line[key] for key in ("low", "high", "p_at_least", "p_less")])
    return np.array(lines, dtype=float)


def _columns(setting: Setting, retention: float, number: int, generator: np.random.Generator) -> list[Column]:
    """Simulate columns with `number` baselines as first rows, followed by the rows compared with them, in order."""
    effects = generator.normal(0, setting.seed_spread, (setting.seeds, number)) if setting.seed_spread else None
    columns = []
    first = 0
    for place, benchmark in enumerate(setting.benchmarks):
        pictures = benchmark.pictures or benchmark.documents
        groups = np.repeat(np.arange(pictures), benchmark.documents // pictures)
        chances = _alike(generator.random((pictures, number))[groups], benchmark.alike, generator)
        clusters = first + np.arange(pictures)
        columns.append(_column(f"{place}", setting, retention, chances, clusters, groups, effects, generator))
        first += pictures
    if setting.twice is not None:
        again = _alike(chances, setting.twice, generator)
        columns.append(_column("again", setting, retention, again, clusters, groups, effects, generator))
    return columns


def _alike(chances: np.ndarray, share: float, generator: np.random.Generator) -> np.ndarray:
    """Return the numbers with all but a share of them drawn again."""
    return np.where(generator.random(chances.shape) < share, chances, generator.random(chances.shape))


def _column(
    title: str,
    setting: Setting,
    retention: float,
    chances: np.ndarray,
    clusters: np.ndarray,
    groups: np.ndarray,
    effects: np.ndarray | None,
    generator: np.random.Generator,
) -> Column:
    """Build a benchmark's column; a uniform number per document and evaluation decides the document's outcome."""
    gained = setting.gained
    lost = setting.score * (1 - retention) + gained
    base = (chances >= gained) & (chances < gained + setting.score)
    if effects is None:
        own = chances < gained + setting.score - lost
        values = 100.0 * np.hstack([base, own])
        return Column(title, values, clusters, groups, knows_pictures=True, cluster_points=100 / len(clusters))
    # Every seed answers a different set of documents; its effect shifts their share.
    runs = [
        np.where(generator.random(chances.shape) < 0.5, chances, _reordered(chances, gained + setting.score, generator))
        < gained + setting.score - lost + effect
        for effect in effects
    ]
    own = np.mean(runs, axis=0)
    means = [
        {run: 100.0 * float(runs[run][:, pair].mean()) for run in range(len(runs))} for pair in range(own.shape[1])
    ]
    values = 100.0 * np.hstack([base, own])
    return Column(
        title,
        values,
        clusters,
        groups,
        knows_pictures=True,
        cluster_points=100 / len(clusters),
        run_means=(*[{}] * len(means), *means),
    )


def _reordered(chances: np.ndarray, below: float, generator: np.random.Generator) -> np.ndarray:
    """Draw the numbers again for documents that some row answers correctly."""
    return np.where(chances < below, below * generator.random(chances.shape), chances)


def _rates(lines: np.ndarray, retention: float) -> dict[str, float]:
    """Return shares of evaluations, 0-1, by interval outcome and by verdict at 5%, and the mean interval width in
    percent."""
    low, high, p_at_least, p_less = lines.T
    true = 100 * retention
    alpha = Criterion().alpha
    return {
        "coverage": float(((low <= true) & (true <= high)).mean()),
        "too_high": float((low > true).mean()),
        "too_low": float((high < true).mean()),
        "width": float((high - low).mean()),
        "says_at_least": float((p_at_least < alpha).mean()),
        "says_less": float((p_less < alpha).mean()),
    }


def readme(records: dict[str, dict[str, Any]]) -> str:
    """Render the README of the records."""
    lines = [
        "# Coverage of the report's intervals",
        "",
        "Invented evaluations with a known retention, the same on every benchmark, compared by the report's own code.",
        "Coverage: share of the 95% intervals that contain the true retention, ideally 95%. Too high and too low: the",
        "share of intervals wholly above and below it. Verdicts: how often a row is said to retain at least, or less",
        "than, the margin, one-sided at 5% without correction; where the margin is true, both are errors. Width: mean",
        "of the intervals, percent of the baseline. Written by `benchmarks/coverage.py`.",
    ]
    for name, record in records.items():
        lines += [
            "",
            f"## {name}: {record['evaluations']:,} evaluations a line, {record['resamples']:,} draws each",
            "",
            f"The standard error of a share of 95% or 5% is {_error(record['evaluations']):.1%}.",
            "",
        ]
        lines += [
            "| setting | what it is | true | coverage | too high | too low | says at least | says less | width |",
            "|:--|:--|--:|--:|--:|--:|--:|--:|--:|",
            *_lines(record),
        ]
    return "\n".join([*lines, "", *records_table(records)]) + "\n"


def _error(evaluations: int) -> float:
    """Return the standard error of a share of 95% or 5% over a number of evaluations."""
    return math.sqrt(0.95 * 0.05 / evaluations)


def summary(record: Mapping[str, Any]) -> list[str]:
    """Return the table's lines for printing."""
    return _lines(record)


def _lines(record: Mapping[str, Any]) -> list[str]:
    keys = ("coverage", "too_high", "too_low", "says_at_least", "says_less")
    lines = []
    for name, own in record["settings"].items():
        for retention in (key for key in own if key != "setting"):
            rates = own[retention]
            shares = " | ".join(f"{100 * rates[key]:.1f}%" for key in keys)
            lines.append(f"| {name} | {own['setting']} | {retention}% | {shares} | {rates['width']:.1f}% |")
    return lines
