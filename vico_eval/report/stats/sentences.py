"""What comparisons of rows show, in sentences: one a row or pair, then what to know about all of them."""

import math
from collections.abc import Sequence

import pandas as pd

from vico_eval.report.stats.retention import AVERAGE
from vico_eval.report.stats.uncertainty import FEW, Criterion


def comparison_sentences(
    uncertainty: pd.DataFrame, loyalty: pd.DataFrame, criterion: Criterion | None = None
) -> tuple[str, ...]:
    """Each row's retention with its interval, its verdict and how often it answers as the baseline does.

    Args:
        uncertainty: of `vico_eval.report.stats.uncertainty.compare_with_baseline`.
        loyalty: of `vico_eval.report.stats.loyalty.loyalty`.
        criterion: that of the verdicts.
    """
    averages = uncertainty[uncertainty["benchmark"] == AVERAGE].set_index("row")
    agreements = loyalty[loyalty["benchmark"] == AVERAGE].set_index("row")
    tested = averages[averages["retention"].notna()]
    # Of one where the baseline scores 0 there is no percentage, but it is part of the average.
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
    """Each pair's difference over the average with its interval, and where single benchmarks differ.

    Args:
        pairs: of `vico_eval.report.paired.pairs.compare_pairs`.
        alpha: level of the tests.
    """
    averages = pairs[pairs["benchmark"] == AVERAGE]
    if averages.empty:
        return ()
    sentences = []
    for _, line in averages.iterrows():
        place = (pairs["row"] == line["row"]) & (pairs["against"] == line["against"])
        sentences.append(_pair(line, pairs[place & (pairs["benchmark"] != AVERAGE)], alpha))
    tests = f"corrected for {len(averages)} pairs (Holm)" if len(averages) > 1 else "of one pair"
    return (
        *sentences,
        f"Differences: of the mean scores, in points, with 95% intervals; p {tests}. Single benchmarks are named where "
        f"p < {alpha:g} after correction for all of their tests.",
    )


def p_text(p: float) -> str:
    """A p-value as sentences have it."""
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
    retained = "its retention is not known"
    if not math.isnan(line["retention"]):
        high = f"to {line['high']:.1f}%" if math.isfinite(line["high"]) else "or more"
        # Another number than the table's, then, which is over all of them.
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
    """Which benchmarks have too few pictures to be sure of."""
    compared = uncertainty[(uncertainty["benchmark"] != AVERAGE) & (uncertainty["too_few"] == uncertainty["benchmark"])]
    named = list(compared["benchmark"].unique())
    if not named:
        return ()
    return (
        f"Too few pictures (fewer than {FEW}, each document's own or shared) to be sure of {', '.join(named)}; the "
        "average's interval has room for that.",
    )


def _note(uncertainty: pd.DataFrame, num_tested: int, criterion: Criterion) -> str:
    compared = uncertainty[(uncertainty["benchmark"] != AVERAGE) & uncertainty["documents"].notna()]
    unknown = list(compared.loc[compared["pictures"].isna(), "benchmark"].unique())
    alone = ""
    if unknown:
        where = "" if len(unknown) == compared["benchmark"].nunique() else f" in {', '.join(unknown)}"
        alone = f"; the runs don't say which documents share them{where}, so there only those scored together are one"
    corrected = f"corrected for {num_tested} rows (Holm)" if num_tested > 1 else "of one row"
    return (
        f"Intervals: 95%, bootstrap over documents, those that share a picture or are scored together as one{alone}, "
        "and over a row's runs where there are several. "
        f"Verdicts: one-sided tests at {criterion.alpha:g} of retaining {criterion.margin:g}%, {corrected}."
    )
