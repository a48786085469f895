"""What a row's documents cost, beside the baseline's: operations of prefill, key/value cache and seconds."""

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
"""By cost, its column of `document_times`."""

COSTS = ("prefill_tflop", "cache_mib", *_MEASURED)
"""What a document costs; each has a share of the baseline's and a Pareto front of its own."""

COLUMNS = (
    *("row", "benchmark", "encoder_tflop", "connector_tflop", "selection_tflop", "decoder_tflop", *COSTS),
    *(f"{cost}_relative" for cost in COSTS),
    *("on_front_of_tokens", *(f"on_front_of_{cost}" for cost in COSTS), "slower"),
)

_TFLOP = 1e12


class _Point(NamedTuple):
    """A row, in percent of the baseline."""

    row: str
    saved: float
    retention: float


def document_costs(
    cells: pd.DataFrame, summary: pd.DataFrame, times: pd.DataFrame | None, baseline: str
) -> pd.DataFrame | None:
    """What a document costs in each row, by benchmark and over all documents (`ALL`).

    Operations are those of prefill: vision encoder (with a router that scores), connectors, what a method itself
    computes to choose tokens (as far as its runs say it) and decoder, by formula from the token accounts. The cache is
    that of prompt and answer. Seconds are what the row would take by itself, prefill and decoding parts of it; each
    document has an even share of its batch's (`vico_eval.report.stats.times`). Memory is the most of any batch behind
    the vision encoder, on CUDA.

    Args:
        cells: of the `Measurements`.
        summary: of the table.
        times: of `document_times`.
        baseline: the row that counts as 100%.

    Returns:
        A line a row and benchmark that it was run on with the columns `COLUMNS`: means over documents and relative to
        the baseline's, percent. Over all documents also whether the row is on the Pareto front of retention and visual
        tokens or a cost, and slower: whether it takes more time than the baseline although it needs fewer operations.
        None where no run says its operations or its times.
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
    """Per document, rows x benchmarks and `ALL`; NaN where a document of them is not known."""
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
    """A cost that may be asked for."""

    cost: str
    """One of `COSTS`."""

    title: str
    """Of a column."""

    axis: str
    """Label of an axis."""

    meaning: str
    """In a footnote's words."""


ASKED = {
    "operations": Asked("prefill_tflop", "Prefill TFLOP", "Operations of prefill", "operations of prefill by formula"),
    "cache": Asked("cache_mib", "KV MiB", "Key/value cache", "key/value cache of prompt and answer"),
    "seconds": Asked(
        *("seconds", "Seconds", "Seconds"),
        "what the row would take by itself, each with an even share of its batch's",
    ),
    "prefill_seconds": Asked(
        *("prefill_seconds", "Prefill s", "Seconds of prefill"),
        "the decoder up to the first token, of the same time",
    ),
    "decode_seconds": Asked(
        *("decode_seconds", "Decode s", "Seconds of decoding"),
        "the tokens behind the first, of the same time",
    ),
    "memory": Asked(
        *("peak_mib", "Peak MiB", "Peak memory"),
        "the most memory of a batch behind the vision encoder, weights included",
    ),
}
"""By the name that asks for it."""


def cost_columns(costs: pd.DataFrame | None, asked: Sequence[str]) -> tuple[CostColumn, ...]:
    """Columns of a table, over all documents of a row."""
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
    """Of which stages the operations are, by rows' means over all documents; older runs don't say the selection's."""
    known = total["prefill_tflop"].notna()
    is_missing = known & total["selection_tflop"].isna()
    if is_missing.equals(known):
        return "encoder, connectors, decoder"
    rows = ", ".join(map(str, total.index[is_missing]))
    missing = f"; no selection of {rows}, whose runs don't say it" if rows else ""
    return f"encoder, connectors, selection, decoder{missing}"


def slow_sentences(costs: pd.DataFrame | None, baseline: str) -> tuple[str, ...]:
    """The rows whose time is more than what they save, in one sentence; none without such a row."""
    slow = None if costs is None else costs[costs["slower"].eq(True)]
    if slow is None or slow.empty:
        return ()
    rows = ", ".join(
        f"{row} ({time:.0f}% for {operations:.0f}%)"
        for row, time, operations in slow[["row", "seconds_relative", "prefill_tflop_relative"]].to_numpy()
    )
    return (f"More time than {baseline} for fewer operations of prefill, by the runs' own times: {rows}.",)


def check_asked(names: Sequence[str]) -> None:
    """Raises ConfigError for a column that there is not."""
    for name in names:
        if name not in ASKED:
            raise unknown_name("column", name, ASKED, where="--columns")
