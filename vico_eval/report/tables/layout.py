"""Build a table from measurements: rows in the order of their cards, with a ratio row below each row that routes
tiles."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from vico_eval.errors import ReportError
from vico_eval.report.budgets.groups import by_budget, is_sweep, methods_of, missed_budgets, row_budgets
from vico_eval.report.scores.benchmarks import Benchmark
from vico_eval.report.stats.measurements import Measurements
from vico_eval.report.stats.retention import (
    AVERAGE,
    by_row,
    compressed_tile_ratio,
    paired_difference,
    relative_retention,
    retention_standard_error,
    run_spread,
    score_spread,
    visual_token_share,
    with_average,
)
from vico_eval.report.tables.table import Row, Table


def order_rows(systems: Mapping[str, str], order: Sequence[str]) -> dict[str, str]:
    """Each row's system by row title, sorted by the systems' order; other systems follow in the given order."""
    places = {system: place for place, system in enumerate(order)}
    titles = sorted(systems, key=lambda title: places.get(systems[title], len(places)))
    return {title: systems[title] for title in titles}


def find_baseline(systems: Mapping[str, str], wanted: str) -> str:
    """The title of the baseline: the row titled `wanted`, else the only row of that system.

    Raises:
        ReportError: there is no such row, or several rows of that system.
    """
    if wanted in systems:
        return wanted
    titles = [title for title, system in systems.items() if system == wanted]
    if len(titles) == 1:
        return titles[0]
    found = "no row" if not titles else f"{len(titles)} rows ({', '.join(titles)})"
    raise ReportError(
        f"Found {found} of the system `{wanted}` to compare with. Give the baseline by its title, one of: "
        f"{', '.join(systems)}."
    )


def build_table(
    measured: Measurements,
    benchmarks: Sequence[Benchmark],
    systems: Mapping[str, str],
    *,
    caption: str,
    baseline: str,
) -> Table:
    """Build the table of measured numbers.

    Args:
        measured: the runs' measurements on the benchmarks.
        benchmarks: the columns.
        systems: each row's system by row title, in row order (within a budget, if there are several).
        caption: printed above the table.
        baseline: title of the row that counts as 100%.
    """
    columns = [benchmark.title for benchmark in benchmarks]
    cells = measured.cells
    shares = with_average(visual_token_share(cells, baseline).reindex(index=list(systems), columns=columns))
    budgets = row_budgets(cells, shares[AVERAGE], baseline)
    order = by_budget(budgets, baseline) if is_sweep(cells) else list(systems)
    scores = by_row(cells, "score").reindex(index=order, columns=columns)
    ratios = with_average(compressed_tile_ratio(cells).reindex(index=order, columns=columns))
    shares = shares.reindex(order)
    retention = relative_retention(scores, baseline)
    missed = missed_budgets(budgets, cells, shares[AVERAGE])
    recorded = cells.groupby("row")["has_record"].all().reindex(order, fill_value=False)
    rows = []
    for title in order:
        values = {str(column): float(value) for column, value in scores.loc[title].items()}
        rows.append(
            Row(
                title=title,
                kind="score",
                values=values | {AVERAGE: float(retention[title])},
                failed=frozenset(cells.loc[(cells["row"] == title) & (cells["failed"] > 0), "benchmark"]),
                competes=title != baseline and bool(recorded[title]),
                saves_nothing=_saves_nothing(shares.loc[title]),
            )
        )
        if recorded[title] and _routes(ratios.loc[title]):
            ratio = {str(column): float(value) for column, value in ratios.loc[title].items()}
            rows.append(Row(title=title, kind="ratio", values=ratio, competes=False))
    divided = ("MME is the sum of its two parts, divided by 28.",) if "MME" in columns else ()
    is_zero = bool((scores.loc[baseline] == 0).all())
    zero = (f"{baseline} has a mean score of 0, so there are no relative scores.",) if is_zero else ()
    return Table(
        caption=caption,
        columns=tuple(columns),
        digits={benchmark.title: benchmark.digits for benchmark in benchmarks},
        rows=tuple(rows),
        baseline=baseline,
        budgets=budgets,
        methods=methods_of(cells) if is_sweep(cells) else {},
        score_spread=score_spread(cells),
        notes=measured.notes + divided + _notes(cells, order, columns) + _missed_notes(budgets, missed) + zero,
        summary=_summary(measured, scores, baseline).assign(
            tile_ratio=ratios[AVERAGE],
            token_share=shares[AVERAGE],
            documents=[
                int(cells[cells["row"] == title].drop_duplicates("benchmark")["documents"].sum()) for title in order
            ],
            runs=[_num_repeats(cells[cells["row"] == title]) for title in order],
        ),
    )


def _summary(measured: Measurements, scores: pd.DataFrame, baseline: str) -> pd.DataFrame:
    # A column without runs makes every average unknown, which the paired errors would not show.
    complete = scores.notna().any().all()
    paired = paired_difference(measured.values, baseline)
    nan = pd.Series(np.nan, index=scores.index)
    return pd.DataFrame(
        {
            "mean_score": scores.mean(axis="columns", skipna=False),
            "retention": relative_retention(scores, baseline),
            "retention_se": retention_standard_error(measured.values, scores, baseline) if complete else nan,
            "retention_spread": run_spread(measured.cells, baseline) if complete else nan,
            "difference": paired.difference[AVERAGE] if complete else nan,
            "difference_se": paired.standard_error[AVERAGE] if complete else nan,
        },
        index=scores.index,
    )


def _missed_notes(budgets: Mapping[str, float], missed: Mapping[str, float]) -> tuple[str, ...]:
    return tuple(
        f"{title}: keeps {used:.1f}% of the visual tokens instead of the requested {budgets[title]:.1f}%."
        for title, used in missed.items()
    )


def _num_repeats(cells: pd.DataFrame) -> int:
    """Number of times that a row was run; runs of different benchmarks count as parts of one."""
    return int(cells.groupby("benchmark")["run"].nunique().max()) if len(cells) else 0


def _saves_nothing(shares: pd.Series) -> frozenset[str]:
    """The columns in which a row does not have fewer visual tokens than the baseline, or its share (percent) is
    unknown."""
    return frozenset(str(column) for column, share in shares.items() if not share < 100 or np.isclose(share, 100))


def _routes(ratios: pd.Series) -> bool:
    """True unless a row's known ratios are all 0% or all 100%; rows with only unknown ratios are shown as unknown."""
    known = ratios.dropna()
    return known.empty or not ((known == 0).all() or (known == 100).all())


def _notes(cells: pd.DataFrame, order: Sequence[str], columns: Sequence[str]) -> tuple[str, ...]:
    notes = []
    for title in order:
        own = cells[cells["row"] == title]
        if missing := [column for column in columns if column not in set(own["benchmark"])]:
            notes.append(f"{title}: not run on {', '.join(missing)}, so it has no average.")
        for cell in own[own["failed"] > 0].itertuples():
            notes.append(
                f"{title}, {cell.benchmark}: {cell.failed} of {cell.documents} documents could not be answered "
                f"({cell.failure}), so there is no score and the row has no average."
            )
        unknown = own[own["score"].isna() & (own["failed"] == 0)]
        if not unknown.empty:
            notes.append(f"{title}: the scorer of {', '.join(unknown['benchmark'])} had too few documents for a score.")
        repeats = own.groupby("benchmark", sort=False)["run"].nunique()
        if repeats.nunique() > 1:
            fewer = ", ".join(str(name) for name in repeats.index[repeats < repeats.max()])
            notes.append(f"{title}: {fewer} has fewer runs than the row's other benchmarks.")
        if (runs := _num_repeats(own)) > 1:
            notes.append(f"{title}: mean of {runs} runs.")
    limited = cells[cells["documents"] < cells["num_available"]].drop_duplicates("benchmark")
    for (answered, available), own in limited.groupby(["documents", "num_available"], sort=False):
        notes.append(f"{answered} of {available} documents answered: {', '.join(own['benchmark'])}.")
    return tuple(notes)
