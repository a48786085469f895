"""Costs per document in each row, relative to the baseline: prefill operations, key/value cache, time and memory."""

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from vico_eval.errors import unknown_name
from vico_eval.report.costs.counts import COUNTS
from vico_eval.report.stats.retention import by_row, pareto_front
from vico_eval.report.stats.times import ALL, MIB
from vico_eval.report.tables.table import CostColumn

_MEASURED = {
    "seconds": "alone_seconds",
    "prefill_seconds": "prefill_seconds",
    "decode_seconds": "decode_seconds",
    "peak_mib": "peak_mib",
}
"""Column of `document_times` for each measured cost."""

COSTS = ("prefill_tflop", "cache_mib", *_MEASURED)
"""Costs of a document; each has a column relative to the baseline and its own Pareto front."""

COLUMNS = (
    *("row", "benchmark", "encoder_tflop", "connector_tflop", "selection_tflop", "decoder_tflop", *COSTS),
    *(f"{cost}_relative" for cost in COSTS),
    *("on_front_of_tokens", *(f"on_front_of_{cost}" for cost in COSTS), "slower"),
)

_TFLOP = 1e12


class _Point(NamedTuple):
    """A row's point, in percent of the baseline."""

    row: str
    saved: float
    retention: float


def document_costs(
    cells: pd.DataFrame, summary: pd.DataFrame, times: pd.DataFrame | None, baseline: str
) -> pd.DataFrame | None:
    """Costs per document in each row, by benchmark and over all documents (`ALL`).

    Operations are those of prefill, by formula from the token accounts: vision encoder (with a router that scores),
    connectors, the method's own selection (if its runs declare it) and decoder. The cache covers prompt and answer.
    Seconds are the time of the row by itself, with prefill and decoding as parts of it; a batch's time is divided
    evenly among its documents (`vico_eval.report.stats.times`). Memory is the peak over batches after the vision
    encoder, on CUDA.

    Args:
        cells: the cells of the `Measurements`.
        summary: the table's summary.
        times: result of `document_times`.
        baseline: the row that counts as 100%.

    Returns:
        One line per row and benchmark run with the columns `COLUMNS`: means over documents, absolute and in percent of
        the baseline's. The lines for all documents also have on_front_of_* (the row is on the Pareto front of retention
        and visual tokens or a cost) and slower (it takes more time than the baseline despite fewer operations). None if
        no run has operations or times.
    """
    frames = _means(cells)
    was_run = by_row(cells, "documents").notna()
    is_same = (was_run == was_run.loc[baseline]).all(axis="columns").reindex(summary.index)
    if times is not None:
        frames |= {cost: _by_row(times, column) for cost, column in _MEASURED.items()}
    known = {name: frame.reindex(index=summary.index) for name, frame in frames.items()}
    shares = {f"{cost}_relative": 100 * known[cost] / known[cost].loc[baseline] for cost in COSTS if cost in known}
    for name, share in shares.items():
        share[ALL] = share[ALL].where(is_same)
        if times is not None and name.removesuffix("_relative") in _MEASURED:
            shares[name] = share.where(_by_row(times, "alone_relative").reindex(index=share.index).notna())
    places = pd.MultiIndex.from_product([summary.index, [*was_run.columns, ALL]], names=["row", "benchmark"])
    found = pd.DataFrame({name: frame.stack().reindex(places) for name, frame in {**known, **shares}.items()})
    found = found.dropna(how="all")
    if found.empty:
        return None
    found = found.reset_index().reindex(columns=list(COLUMNS))
    total = found[found["benchmark"] == ALL].set_index("row")
    kept = summary.assign(**total[[f"{cost}_relative" for cost in COSTS]])
    for name, share in {"tokens": "token_share", **{cost: f"{cost}_relative" for cost in COSTS}}.items():
        fronts = kept.index.isin(_front(kept, share))
        found[f"on_front_of_{name}"] = found["row"].map(dict(zip(kept.index, fronts, strict=True)))
    is_slower = (kept["seconds_relative"] > 100) & (kept["prefill_tflop_relative"] < 100)
    found["slower"] = found["row"].map(is_slower)
    only_all = [name for name in COLUMNS if name.startswith("on_front") or name == "slower"]
    found[only_all] = found[only_all].astype(object).where(found["benchmark"] == ALL, None)
    return found


def _means(cells: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Means per document, rows x benchmarks and `ALL`; NaN if any document's costs are unknown."""
    sums = {name: by_row(cells, name) for name in (*COUNTS, "documents")}
    was_run = sums["documents"].notna()
    means = {}
    for name in COUNTS:
        is_known = (sums[name].notna() == was_run).all(axis="columns")
        total = sums[name].sum(axis="columns") / sums["documents"].sum(axis="columns")
        means[name] = (sums[name] / sums["documents"]).assign(**{ALL: total.where(is_known)})
    encoder, connector, selection, decoder = (
        means[f"{stage}_operations"] / _TFLOP for stage in ("encoder", "connector", "selection", "decoder")
    )
    return {
        "encoder_tflop": encoder,
        "connector_tflop": connector,
        "selection_tflop": selection,
        "decoder_tflop": decoder,
        "prefill_tflop": encoder + connector + selection.fillna(0) + decoder,
        "cache_mib": means["cache_bytes"] / MIB,
    }


def _by_row(times: pd.DataFrame, column: str) -> pd.DataFrame:
    return times.pivot(index="row", columns="benchmark", values=column).astype(float)


def _front(summary: pd.DataFrame, share: str) -> Sequence[str]:
    known = summary[["retention", share]].dropna()
    points = [_Point(str(row), 100 - one[share], one["retention"]) for row, one in known.iterrows()]
    return [point.row for point in pareto_front(points)]


class Asked(NamedTuple):
    """A cost that can be requested as a column or axis."""

    cost: str
    """One of `COSTS`."""

    title: str
    """Title of the column."""

    axis: str
    """Label of the axis."""

    meaning: str
    """Explanation in a footnote."""


ASKED = {
    "operations": Asked("prefill_tflop", "Prefill TFLOP", "Prefill operations", "prefill operations by formula"),
    "cache": Asked("cache_mib", "KV MiB", "Key/value cache", "key/value cache of prompt and answer"),
    "seconds": Asked(
        *("seconds", "Seconds", "Seconds"),
        "time of the row by itself, divided evenly within a batch",
    ),
    "prefill_seconds": Asked(
        *("prefill_seconds", "Prefill s", "Prefill seconds"),
        "the part of that time in the decoder up to the first token",
    ),
    "decode_seconds": Asked(
        *("decode_seconds", "Decode s", "Decoding seconds"),
        "the part of that time for tokens after the first",
    ),
    "memory": Asked(
        *("peak_mib", "Peak MiB", "Peak memory"),
        "peak memory of a batch after the vision encoder, including weights",
    ),
}
"""Costs by the name that requests them."""


def cost_columns(costs: pd.DataFrame | None, asked: Sequence[str]) -> tuple[CostColumn, ...]:
    """The requested cost columns of a table, over all documents of a row."""
    columns = []
    for name in asked:
        cost, title, _, meaning = ASKED[name]
        total = pd.DataFrame(columns=COLUMNS) if costs is None else costs[costs["benchmark"] == ALL]
        total = total.set_index("row")
        if name == "operations":
            meaning = f"{meaning} ({_stages(total)})"
        if name != "memory":
            meaning = f"{meaning}, mean over the row's documents"
        columns.append(CostColumn(title=title, meaning=meaning, values=total[cost].to_dict()))
    return tuple(columns)


def _stages(total: pd.DataFrame) -> str:
    """The stages included in the operations; older runs don't record those of the selection."""
    known = total["prefill_tflop"].notna()
    is_missing = known & total["selection_tflop"].isna()
    if is_missing.equals(known):
        return "encoder, connectors, decoder"
    rows = ", ".join(map(str, total.index[is_missing]))
    missing = f"; without the selection in {rows}, whose runs don't record it" if rows else ""
    return f"encoder, connectors, selection, decoder{missing}"


def slow_sentences(costs: pd.DataFrame | None, baseline: str) -> tuple[str, ...]:
    """One sentence that lists rows slower than the baseline despite fewer operations; empty without such rows."""
    slow = None if costs is None else costs[costs["slower"].eq(True)]
    if slow is None or slow.empty:
        return ()
    rows = ", ".join(
        f"{row} ({time:.0f}% for {operations:.0f}%)"
        for row, time, operations in slow[["row", "seconds_relative", "prefill_tflop_relative"]].to_numpy()
    )
    return (f"Slower than {baseline} despite fewer prefill operations, by the runs' own times: {rows}.",)


def check_asked(names: Sequence[str]) -> None:
    """Check that `names` are known costs.

    Raises:
        ConfigError: a name is unknown.
    """
    for name in names:
        if name not in ASKED:
            raise unknown_name("column", name, ASKED, where="--columns")
