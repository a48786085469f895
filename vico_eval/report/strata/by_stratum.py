"""Scores of rows within categories and groups of hard documents, and their differences from the baseline."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from vico_eval.report.stats.measurements import Documents, Measurements
from vico_eval.report.stats.retention import runs_by_cell, standard_error
from vico_eval.report.stats.uncertainty import LEVEL
from vico_eval.report.strata.groups import Group, hard_groups, row_scores

CATEGORY, HARD = "category", "hard documents"

COLUMNS = (
    *("benchmark", "kind", "stratum", "row", "documents", "pictures", "share", "score", "baseline"),
    *("difference", "low", "high"),
)


def by_stratum(
    measured: Measurements, systems: Mapping[str, str], benchmarks: Sequence[str], baseline: str
) -> pd.DataFrame:
    """Mean document scores of each row within strata of each benchmark.

    Returns:
        One line per benchmark, stratum and row with the columns `COLUMNS`: kind (`CATEGORY` or `HARD`), documents
        (their number), pictures (number of clusters), share (percentage of the benchmark's counting documents), score
        and baseline (mean over the documents, 0-100; this differs from a benchmark's score that is not such a mean,
        like F1), difference (points) with low and high (its 95% interval). A group without judged rows has one line,
        without a row. Documents without a category are left out.
    """
    lines: list[dict[str, object]] = []
    runs = runs_by_cell(measured.cells)
    for benchmark in benchmarks:
        documents = measured.documents.get(benchmark)
        if documents is None:
            continue
        scores = row_scores(documents, {row: own for row in systems if (own := runs.get((row, benchmark)))})
        if not scores:
            continue
        clusters = measured.values[benchmark].index.to_numpy()
        counted = ~np.isnan(next(iter(scores.values())))
        for kind, group in _strata(documents, scores, systems, baseline):
            members = group.members & counted
            place = {"benchmark": benchmark, "kind": kind, "stratum": group.name, "documents": int(members.sum())}
            place["share"] = 100 * members.sum() / counted.sum()
            if not group.judged:
                lines.append(place)
            else:
                own = pd.DataFrame({row: scores[row][members] for row in group.judged}, index=clusters[members])
                base = scores[baseline][members] if baseline in scores else None
                lines += [{**place, "row": row, **line} for row, line in _compared(own, base, baseline).items()]
    return pd.DataFrame(lines, columns=list(COLUMNS))


def _strata(
    documents: Documents, scores: Mapping[str, np.ndarray], systems: Mapping[str, str], baseline: str
) -> Iterator[tuple[str, Group]]:
    if (categories := documents.categories) is not None:
        of_each = np.array(categories, dtype=object)
        for name in dict.fromkeys(one for one in categories if one):
            yield CATEGORY, Group(name, of_each == name, tuple(scores))
    for group in hard_groups(scores, systems, baseline):
        yield HARD, group


def _compared(own: pd.DataFrame, base: np.ndarray | None, baseline: str) -> dict[str, dict[str, float]]:
    """Each row's score, and its difference from the baseline with an interval, from Student's t over clusters.

    Args:
        own: documents x rows, with clusters as index.
        base: [documents], the baseline's scores; None if it has none.
        baseline: title of the baseline, which is not compared with itself.
    """
    # Imported here, as in vico_eval.report.paired.draws, because reading published tables needs no intervals.
    from scipy.special import stdtrit

    number = own.index.nunique()
    found = {str(row): {"pictures": float(number), "score": float(score)} for row, score in own.mean().items()}
    if base is None or not number:
        return found
    changes = own.sub(base, axis="index").drop(columns=baseline, errors="ignore")
    errors = standard_error(changes)
    for row, difference in changes.mean().items():
        line = found[str(row)]
        line |= {"baseline": float(base.mean()), "difference": float(difference)}
        if number > 1:
            half = float(stdtrit(number - 1, 1 - LEVEL / 2)) * errors[row] if changes[row].any() else _unseen(number)
            line |= {"low": max(-100.0, difference - half), "high": min(100.0, difference + half)}
    return found


def _unseen(number: int) -> float:
    """Half-width of the interval, in points, if no cluster changed: Clopper and Pearson's limit."""
    return 100 * float(1 - (LEVEL / 2) ** (1 / number))
