"""What the comparison with the baseline says, in sentences: one a row, then what to know about all of them."""

import math

import pandas as pd

from vico_eval.report.stats.retention import AVERAGE
from vico_eval.report.stats.uncertainty import LEVEL, THRESHOLD, verdict


def comparison_sentences(uncertainty: pd.DataFrame, loyalty: pd.DataFrame) -> tuple[str, ...]:
    """Each row's retention with its interval, its verdict and how often it answers as the baseline does.

    Args:
        uncertainty: of `vico_eval.report.stats.uncertainty.compare_with_baseline`.
        loyalty: of `vico_eval.report.stats.loyalty.loyalty`.
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
    return (*sentences, _note(uncertainty, len(tested))) if len(tested) else tuple(sentences)


def _row(row: str, line: pd.Series, agreement: pd.Series, benchmarks: pd.Series) -> str:
    retained = "its retention is not known"
    if not math.isnan(line["retention"]):
        high = f"to {line['high']:.1f}%" if math.isfinite(line["high"]) else "or more"
        # Another number than the table's, then, which is over all of them.
        some = f" over {benchmarks.count()} of {len(benchmarks)} benchmarks" if benchmarks.hasnans else ""
        retained = f"{line['retention']:.1f}% ({line['low']:.1f}% {high}){some}, {verdict(line)}"
    if math.isnan(agreement["same_answer"]):
        return f"{row}: {retained}."
    changes = ""
    if not math.isnan(agreement["lost"]):
        noun = "document" if round(agreement["lost"]) == 1 else "documents"
        changes = f", {agreement['lost']:,.0f} {noun} lost, {agreement['gained']:,.0f} gained"
    return f"{row}: {retained}; {agreement['same_answer']:.0f}% same answers{changes}."


def _rows(rows: list[str], num_all: int) -> str:
    return "all rows" if len(rows) == num_all > 1 else ", ".join(rows)


def _note(uncertainty: pd.DataFrame, num_tested: int) -> str:
    compared = uncertainty[(uncertainty["benchmark"] != AVERAGE) & uncertainty["documents"].notna()]
    unknown = list(compared.loc[compared["pictures"].isna(), "benchmark"].unique())
    alone = ""
    if unknown:
        where = "" if len(unknown) == compared["benchmark"].nunique() else f" in {', '.join(unknown)}"
        alone = f"; the runs don't say which documents share them{where}, so there only those scored together are one"
    corrected = f"corrected for {num_tested} rows (Holm)" if num_tested > 1 else "of one row"
    return (
        f"Intervals: 95%, bootstrap over documents, those that share a picture or are scored together as one{alone}. "
        f"Verdicts: one-sided tests at {LEVEL:g} of retaining {THRESHOLD:.0f}%, {corrected}; the choice of seeds is "
        "not part of them."
    )
