"""Calibration of a router: its scores against the documents lost when every tile is compressed.

Losses are taken from two other rows of the report: a document is lost if the baseline answers it and the row that
compresses every tile does not. A good router gives such documents low scores. Scores belong to tiles and losses to
documents, so each document gets the mean score of its tiles; a few important tiles among many others have little effect
on it.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from vico_eval.report.stats.measurements import Measurements
from vico_eval.report.stats.retention import AVERAGE, compressed_tile_ratio, runs_by_cell
from vico_eval.report.strata.groups import ANSWERED, row_scores

NUM_BINS = 10

COLUMNS = (
    *("row", "compressed", "benchmark", "low", "high", "documents", "p_compress", "lost"),
    *("auc", "auc_low", "auc_high"),
)
_Z = 1.959964


class Auc(NamedTuple):
    """Probability that a lost document has a lower score than a kept one, with ties counting half."""

    auc: float
    variance: float
    """Variance after DeLong, DeLong and Clarke-Pearson (1988)."""

    pairs: int


class _Outcomes(NamedTuple):
    """A benchmark's documents that the baseline answers."""

    scores: np.ndarray
    """[documents], 0-1, mean p(compress) over a document's tiles."""

    is_lost: np.ndarray
    """[documents], bool."""


def router_calibration(
    measured: Measurements,
    weights: Mapping[str, str | None],
    rows: Sequence[str],
    benchmarks: Sequence[str],
    baseline: str,
) -> pd.DataFrame | None:
    """Calibration of each router, by benchmark and for `Avg.` over all benchmarks' documents.

    Args:
        measured: the runs' measurements.
        weights: digest of each row's weights by row title; a router is compared only with losses of the same model.
        rows: row titles, in order.
        benchmarks: benchmark titles.
        baseline: the row that counts as 100%.

    Returns:
        One line per row with scores, benchmark and bin of scores, with the columns `COLUMNS`: compressed (the first row
        with the same weights that compresses every tile), low and high (edges of the bin; NaN in the line for all
        documents), documents (those that the baseline answers), p_compress (their mean score), lost (percentage that
        the compressed row does not answer), and in the line for all documents auc with its 95% interval (which treats
        documents as independent; for `Avg.` over pairs within a benchmark; NaN if fewer than two are lost, or kept).
        None if no row has scores or no row with the same weights compresses every tile.
    """
    all_compressed = _compressed_rows(measured.cells, rows, weights)
    lines: list[dict[str, object]] = []
    runs = runs_by_cell(measured.cells)
    for row in rows:
        compressed = all_compressed.get(weights[row])
        if compressed is None or row == compressed:
            continue
        by_benchmark = dict(_outcomes(measured, runs, row, compressed, benchmarks, baseline))
        if not by_benchmark:
            continue
        for benchmark, own in by_benchmark.items():
            lines += _lines(row, compressed, benchmark, own, [own])
        every = _Outcomes(*(np.concatenate(parts) for parts in zip(*by_benchmark.values(), strict=True)))
        lines += _lines(row, compressed, AVERAGE, every, list(by_benchmark.values()))
    return pd.DataFrame(lines, columns=list(COLUMNS)) if lines else None


def area_under_curve(lost: np.ndarray, kept: np.ndarray) -> Auc:
    """AUC of the scores of lost against kept documents; NaN if there are fewer than two of either kind."""
    if min(lost.size, kept.size) < 2:
        return Auc(np.nan, np.nan, 0)
    # Ranks by pandas, since scipy.stats would take a second longer to load.
    ranks, of_lost, of_kept = (
        pd.Series(scores).rank().to_numpy() for scores in (np.concatenate([lost, kept]), lost, kept)
    )
    # For each document, the share of the other kind that is ordered correctly with respect to it.
    above = 1 - (ranks[: lost.size] - of_lost) / kept.size
    below = (ranks[lost.size :] - of_kept) / lost.size
    variance = sum(part.var(ddof=1) / part.size for part in (above, below))
    return Auc(float(above.mean()), float(variance), lost.size * kept.size)


def calibration_sentences(calibration: pd.DataFrame | None, baseline: str) -> tuple[str, ...]:
    """Sentences on the calibration, one per router."""
    if calibration is None:
        return ()
    totals = calibration[(calibration["benchmark"] == AVERAGE) & calibration["auc"].notna()]
    return tuple(
        f"{line.row}: with probability {line.auc:.2f} ({line.auc_low:.2f} to {line.auc_high:.2f}), a document that "
        f"{baseline} answers and {line.compressed} loses has a lower mean p(compress) than one that both answer (AUC "
        "within benchmarks, chance is .5)."
        for line in totals.itertuples()
    )


def _compressed_rows(
    cells: pd.DataFrame, rows: Sequence[str], weights: Mapping[str, str | None]
) -> dict[str | None, str]:
    """The first row of each model that compresses all its tiles, by digest of the weights."""
    ratios = compressed_tile_ratio(cells)
    are_all = (ratios.isna() | (ratios == 100)).all(axis="columns") & ratios.notna().any(axis="columns")
    found: dict[str | None, str] = {}
    for row in rows:
        if row in are_all.index and are_all[row]:
            found.setdefault(weights[row], row)
    return found


def _outcomes(
    measured: Measurements,
    runs: Mapping[tuple[str, str], Sequence[int]],
    row: str,
    compressed: str,
    benchmarks: Sequence[str],
    baseline: str,
) -> Iterator[tuple[str, _Outcomes]]:
    for benchmark in benchmarks:
        numbers = runs.get((row, benchmark), [])
        if not numbers:
            continue
        documents = measured.documents[benchmark]
        of_runs = [documents.runs[number].p_compress for number in numbers if number in documents.runs]
        known = [scores for scores in of_runs if scores is not None]
        others = {other: runs[other, benchmark] for other in (baseline, compressed) if (other, benchmark) in runs}
        scores = row_scores(documents, others)
        if known and len(known) == len(numbers) and len(scores) == 2:
            means = np.mean(known, axis=0)
            members = (scores[baseline] >= ANSWERED) & ~np.isnan(means)
            yield benchmark, _Outcomes(means[members], scores[compressed][members] < ANSWERED)


def _lines(
    row: str, compressed: str, benchmark: str, own: _Outcomes, parts: Sequence[_Outcomes]
) -> list[dict[str, object]]:
    """The line for all documents, and one for each bin that is not empty."""
    place = {"row": row, "compressed": compressed, "benchmark": benchmark}
    found = [area_under_curve(part.scores[part.is_lost], part.scores[~part.is_lost]) for part in parts]
    with_both = [one for one in found if one.pairs]
    weights = np.array([one.pairs for one in with_both], dtype=float) / max(1, sum(one.pairs for one in with_both))
    total = {**place, **_counts(own)}
    if with_both:
        auc = float(weights @ [one.auc for one in with_both])
        half = _Z * float(np.sqrt(weights**2 @ [one.variance for one in with_both]))
        total |= {"auc": auc, "auc_low": np.clip(auc - half, 0, 1), "auc_high": np.clip(auc + half, 0, 1)}
    lines: list[dict[str, object]] = [total]
    places = np.minimum((own.scores * NUM_BINS).astype(int), NUM_BINS - 1)
    for number in range(NUM_BINS):
        inside = _Outcomes(*(part[places == number] for part in own))
        if inside.scores.size:
            lines.append({**place, "low": number / NUM_BINS, "high": (number + 1) / NUM_BINS, **_counts(inside)})
    return lines


def _counts(own: _Outcomes) -> dict[str, float]:
    if not own.scores.size:
        return {"documents": 0.0}
    return {
        "documents": float(own.scores.size),
        "p_compress": float(own.scores.mean()),
        "lost": 100 * float(own.is_lost.mean()),
    }
