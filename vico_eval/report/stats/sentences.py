"""Sentences on comparisons of rows: one per row or pair, followed by general notes."""

import math
from collections.abc import Sequence

import pandas as pd

from vico_eval.report.stats.retention import AVERAGE
from vico_eval.report.stats.uncertainty import FEW, Criterion


def comparison_sentences(
    uncertainty: pd.DataFrame, loyalty: pd.DataFrame, criterion: Criterion | None = None
) -> tuple[str, ...]:
    """Sentences with each row's retention, interval, verdict and agreement with the baseline.

    Args:
        uncertainty: result of `vico_eval.report.stats.uncertainty.compare_with_baseline`.
        loyalty: result of `vico_eval.report.stats.loyalty.loyalty`.
        criterion: hypothesis that verdicts test.
    """
    averages = uncertainty[uncertainty["benchmark"] == AVERAGE].set_index("row")
    agreements = loyalty[loyalty["benchmark"] == AVERAGE].set_index("row")
    tested = averages[averages["retention"].notna()]
    # A benchmark with a baseline score of 0 has no percentage, but is part of the average.
    benchmarks = uncertainty[uncertainty["benchmark"] != AVERAGE].groupby("row")["documents"]
    sentences = [
        _row(str(row), line, agreements.loc[row], benchmarks.get_group(row)) for row, line in averages.iterrows()
    ]
    sentences += [
        f"Left out for {_rows(list(own.index), len(averages))}: {left_out}."
        for left_out, own in averages.groupby("left_out", sort=False)
        if left_out
    ]
    if tested.empty:
        return tuple(sentences)
    return (*sentences, *_too_few(uncertainty), _note(uncertainty, len(tested), criterion or Criterion()))


def pair_sentences(pairs: pd.DataFrame, alpha: float) -> tuple[str, ...]:
    """Sentences with each pair's average difference and interval, and the benchmarks that differ significantly.

    Args:
        pairs: result of `vico_eval.report.paired.pairs.compare_pairs`.
        alpha: level of the tests.
    """
    averages = pairs[pairs["benchmark"] == AVERAGE]
    if averages.empty:
        return ()
    sentences = []
    for _, line in averages.iterrows():
        place = (pairs["row"] == line["row"]) & (pairs["against"] == line["against"])
        sentences.append(_pair(line, pairs[place & (pairs["benchmark"] != AVERAGE)], alpha))
    tests = f"is corrected for {len(averages)} pairs (Holm)" if len(averages) > 1 else "is for a single pair"
    return (
        *sentences,
        f"Differences are between mean scores, in points, with 95% intervals; p {tests}. Single benchmarks are listed "
        f"if p < {alpha:g} after correction for all of their tests.",
    )


def p_text(p: float) -> str:
    """Format a p-value for a sentence."""
    return "p < .001" if p < 0.001 else f"p = {p:.3f}".replace("0.", ".", 1)


def _pair(line: pd.Series, benchmarks: pd.DataFrame, alpha: float) -> str:
    titles = f"{line['row']} against {line['against']}"
    if pd.isna(line["difference"]):
        return f"{titles}: not compared ({line['left_out']})."
    difference, low, high = (_signed(line[key]) for key in ("difference", "low", "high"))
    some = f" over {benchmarks['documents'].count()} of {len(benchmarks)} benchmarks" if line["left_out"] else ""
    apart = benchmarks[benchmarks["p_holm"] < alpha]
    named = [f"{own['benchmark']} {_signed(own['difference'])}" for _, own in apart.iterrows()]
    also = f"; {', '.join(named)}" if named else ""
    return f"{titles}: {difference} ({low} to {high}){some}, {p_text(line['p_holm'])}{also}."


def _signed(points: float) -> str:
    return f"{points:+.1f}".replace("-", "−")


def _row(row: str, line: pd.Series, agreement: pd.Series, benchmarks: pd.Series) -> str:
    retained = "retention unknown"
    if not math.isnan(line["retention"]):
        high = f"to {line['high']:.1f}%" if math.isfinite(line["high"]) else "or more"
        # The table's number is over all benchmarks, so this one can differ.
        some = f" over {benchmarks.count()} of {len(benchmarks)} benchmarks" if benchmarks.hasnans else ""
        retained = f"{line['retention']:.1f}% ({line['low']:.1f}% {high}){some}, {line['verdict']}"
    if math.isnan(agreement["same_answer"]):
        return f"{row}: {retained}."
    changes = ""
    if not math.isnan(agreement["lost"]):
        noun = "document" if round(agreement["lost"]) == 1 else "documents"
        changes = f", {agreement['lost']:,.0f} {noun} lost, {agreement['gained']:,.0f} gained"
    return f"{row}: {retained}; {agreement['same_answer']:.0f}% same answers{changes}."


def _rows(rows: list[str], num_all: int) -> str:
    return "all rows" if len(rows) == num_all > 1 else ", ".join(rows)


def _too_few(uncertainty: pd.DataFrame) -> Sequence[str]:
    """A sentence on benchmarks with too few images for reliable intervals; empty without such benchmarks."""
    compared = uncertainty[(uncertainty["benchmark"] != AVERAGE) & (uncertainty["too_few"] == uncertainty["benchmark"])]
    named = list(compared["benchmark"].unique())
    if not named:
        return ()
    return (
        f"Intervals of {', '.join(named)} are unreliable, with fewer than {FEW} different images; the average's "
        "interval allows for that.",
    )


def _note(uncertainty: pd.DataFrame, num_tested: int, criterion: Criterion) -> str:
    compared = uncertainty[(uncertainty["benchmark"] != AVERAGE) & uncertainty["documents"].notna()]
    unknown = list(compared.loc[compared["pictures"].isna(), "benchmark"].unique())
    alone = ""
    if unknown:
        where = "" if len(unknown) == compared["benchmark"].nunique() else f" in {', '.join(unknown)}"
        alone = f" (the runs don't record shared images{where}, so only documents scored together are clustered there)"
    corrected = f"corrected for {num_tested} rows (Holm)" if num_tested > 1 else "for a single row"
    return (
        f"Intervals are 95% bootstrap intervals over documents, clustered by shared images and joint scoring{alone}, "
        "and over a row's runs if there are several. "
        f"Verdicts are one-sided tests at level {criterion.alpha:g} of retaining {criterion.margin:g}%, "
        f"{corrected}."
    )
