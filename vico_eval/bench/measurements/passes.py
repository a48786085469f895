"""The time saved by a shared pass over the documents for rows with the same weights: three loads, and the README."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

from vico_eval.bench.measurements import pass_films, pass_sweep, pass_table
from vico_eval.bench.measurements.two_ways import SEPARATE, SHARED, encoding_share
from vico_eval.bench.records import conditions, records_table

TABLE, SWEEP, FILMS = "table", "sweep", "films"

GOALS = {TABLE: 0.6, SWEEP: 0.45, FILMS: 0.35}
"""The maximum share of the separate rows' time that a pass should take, by load."""


def measure(load: str, rounds: int, device: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Measure one of the loads and return the record.

    Args:
        load: a name in `GOALS`.
        rounds: number of times that all rows are answered in each way.
        device: the models' device.
        settings: further arguments of the load's own `measure`.
    """
    loads: dict[str, Callable[..., dict[str, Any]]] = {
        TABLE: pass_table.measure,
        SWEEP: pass_sweep.measure,
        FILMS: pass_films.measure,
    }
    measured = loads[load](rounds=rounds, device=device, **settings)
    record = conditions("benchmarks/passes.py", device) | {"load": load} | measured
    return record | {"ratio": median(record["ratios"]), "goal": GOALS[load]}


def readme(records: dict[str, dict[str, Any]]) -> str:
    """Render the README of the records."""
    lines = [
        "# Time saved by one pass",
        "",
        "The same rows on the same documents in two ways: each row separately, and all rows with the same weights in",
        "one pass, which reads, tiles and encodes a document's images once. Pass / separate is the ratio of their",
        "times in the same round: median (lowest to highest) over the rounds. With one round there is no range, and",
        "a difference of a few percent is not significant. Both ways take turns on one machine, which may do other",
        "work at the same time. Records therefore have its load average before each run, and the column CPU time has",
        "the same ratio for CPU seconds, which other work affects less. Every answer and token account of a pass was",
        "compared with that of the separate row; a record is only written if all are equal. Encoding is the vision",
        "encoder's share of the separate rows' time. Written by `benchmarks/passes.py`.",
        "",
        "| load | processor | threads | rows | documents | separate | pass | pass / separate | goal | CPU time "
        "| encoding |",
        "|:--|:--|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
        *(_line(record) for record in records.values()),
        "",
        *(f"- {_described(record)}" for record in records.values()),
        "",
        *records_table(records),
    ]
    return "\n".join(lines) + "\n"


def _line(record: Mapping[str, Any]) -> str:
    separate, shared = (median(record[way]["seconds"]) for way in (SEPARATE, SHARED))
    # The processes of a table run in parallel, so their sum is not a share of the time.
    encoding = "" if record["load"] == TABLE else f"{encoding_share(record):.0%}"
    return (
        f"| {record['load']} | {record['processor']} | {record['threads']} | {len(record['rows'])} "
        f"| {record['documents']} | {separate:.0f} s | {shared:.0f} s | {_ratio(record)} | at most {record['goal']} "
        f"| {median(record['cpu_ratios']):.2f} | {encoding} |"
    )


def _ratio(record: Mapping[str, Any]) -> str:
    ratios = record["ratios"]
    spread = "" if len(ratios) == 1 else f" ({min(ratios):.2f} to {max(ratios):.2f})"
    return f"{record['ratio']:.2f}{spread}"


def _described(record: Mapping[str, Any]) -> str:
    """Describe a load and its counts."""
    return {TABLE: _of_table, SWEEP: _of_sweep, FILMS: _of_films}[record["load"]](record)


def _of_table(record: Mapping[str, Any]) -> str:
    documents = "all documents" if record["limit"] is None else f"the first {record['limit']} documents of each task"
    return (
        f"**table**: `vico-eval run {record['table']}` from start to end, including lmms-eval's start, loading and the "
        f"report, with {record['jobs']} jobs and {documents}: {record[SHARED]['passes']} passes, and "
        f"{record[SEPARATE]['passes']} separate rows with `--no-shared-pass`."
    )


def _of_sweep(record: Mapping[str, Any]) -> str:
    budgets = ", ".join(f"{budget:.4g}" for budget in record["budgets"])
    return (
        f"**sweep**: {', '.join(record['methods'])}, each with keep_ratio {budgets}, on random weights of the "
        f"{record['size']} model in {record['dtype']}. Each document has a different image, one 448 px tile of random "
        f"pixels; {record['batch_size']} documents per batch, {record['new_tokens']} new tokens. Separate rows have "
        "separate engines on the same loaded model, so neither time includes loading weights, which each row would "
        "also do with `--no-shared-pass`."
    )


def _of_films(record: Mapping[str, Any]) -> str:
    films, questions = record["films"], record["documents"] // record["films"]["number"]
    return (
        f"**films**: H.264 videos of {films['width']} x {films['height']}, {films['seconds']} s at {films['fps']} "
        f"frames per second ({films['number']} by {films['codec']}, preset {films['options']['preset']}, "
        f"{films['bytes'] / 2**20:.0f} MiB in all), {films['shown']} frames of each shown, {questions} consecutive "
        f"questions per video, {record['batch_size']} documents per batch, on `{record['checkpoint']}`. Videos were "
        f"decoded {record[SEPARATE]['films_decoded']:g} times by the separate rows and "
        f"{record[SHARED]['films_decoded']:g} times by the pass. In both ways, consecutive questions about a video "
        "share its decoding, and also its encoding if they share a batch. Neither time includes loading weights."
    )


def summary(record: Mapping[str, Any]) -> list[str]:
    """Return lines with the times and their ratio."""
    return [
        f"{record['load']}: {len(record['rows'])} rows x {record['documents']} documents",
        *(f"{way:<9} {median(record[way]['seconds']):.1f} s" for way in (SEPARATE, SHARED)),
        f"{'ratio':<9} {_ratio(record)}, goal at most {record['goal']}; all {record['equal_answers']} answers equal",
    ]
