"""What one pass over the documents saves where several rows share their weights: three loads, and the README."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

from vico_eval.bench.measurements import pass_films, pass_sweep, pass_table
from vico_eval.bench.measurements.two_ways import SEPARATE, SHARED, encoding_share
from vico_eval.bench.records import conditions, records_table

TABLE, SWEEP, FILMS = "table", "sweep", "films"

GOALS = {TABLE: 0.6, SWEEP: 0.45, FILMS: 0.35}
"""By load, the share of the separate rows' time that a pass may take."""


def measure(load: str, rounds: int, device: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The record of one of the loads.

    Args:
        load: one of `GOALS`.
        rounds: how often all rows are answered in each way.
        device: of the models.
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
    """The README beside the records."""
    lines = [
        "# What one pass saves",
        "",
        "The same rows on the same documents in two ways: each row by itself, and all rows of the same weights in",
        "one pass, which reads, cuts and encodes a document's pictures once. Pass / separate is the pass's time",
        "over that of the separate rows in the same round: median (lowest to highest) over the rounds. With one",
        "round there is no such range, and a difference of a few percent says nothing. Both ways take turns on one",
        "machine, which may do other work meanwhile: records hold its load average before each run, and CPU time is",
        "the same ratio of the seconds in which processes computed, which other work changes less. Every answer and",
        "token account of a pass was compared with that of the row by itself; a record is only written where all",
        "are equal. Encoding is the vision encoder's share of the separate rows' time. Written by",
        "`benchmarks/passes.py`.",
        "",
        "| load | where | threads | rows | documents | separate | pass | pass / separate | goal | CPU time "
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
    # Processes of a table run side by side: their sum is no share of the time.
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
    """What a load is, and what was counted."""
    return {TABLE: _of_table, SWEEP: _of_sweep, FILMS: _of_films}[record["load"]](record)


def _of_table(record: Mapping[str, Any]) -> str:
    documents = "all documents" if record["limit"] is None else f"the first {record['limit']} documents of each task"
    return (
        f"**table**: `vico-eval run {record['table']}` from its start to its end, lmms-eval's own start, loading and "
        f"the report included, with {record['jobs']} jobs and {documents}: {record[SHARED]['passes']} passes, and "
        f"{record[SEPARATE]['passes']} separate rows with `--no-shared-pass`."
    )


def _of_sweep(record: Mapping[str, Any]) -> str:
    budgets = ", ".join(f"{budget:.4g}" for budget in record["budgets"])
    return (
        f"**sweep**: {', '.join(record['methods'])}, each with keep_ratio {budgets}, on random weights of the "
        f"{record['size']} model in {record['dtype']}. Each document is a picture of its own, one 448 px tile of "
        f"random pixels; {record['batch_size']} documents a batch, {record['new_tokens']} new tokens. Separate rows "
        "have engines of their own on the same loaded model: loading weights is in neither time, and rows of "
        "`--no-shared-pass` would also each load them."
    )


def _of_films(record: Mapping[str, Any]) -> str:
    films, questions = record["films"], record["documents"] // record["films"]["number"]
    return (
        f"**films**: films of {films['width']} x {films['height']}, {films['seconds']} s at {films['fps']} frames a "
        f"second, H.264 ({films['number']} by {films['codec']}, preset {films['options']['preset']}, "
        f"{films['bytes'] / 2**20:.0f} MiB in all), {films['shown']} frames of each shown, {questions} questions a "
        f"film side by side, {record['batch_size']} documents a batch, on `{record['checkpoint']}`. Films were decoded "
        f"{record[SEPARATE]['films_decoded']:g} times by the separate rows and {record[SHARED]['films_decoded']:g} "
        "times by the pass. Questions about a film that follow each other share its decoding in both ways, and its "
        "encoding where they share a batch. Loading weights is in neither time."
    )


def summary(record: Mapping[str, Any]) -> list[str]:
    """Times and ratio."""
    return [
        f"{record['load']}: {len(record['rows'])} rows x {record['documents']} documents",
        *(f"{way:<9} {median(record[way]['seconds']):.1f} s" for way in (SEPARATE, SHARED)),
        f"{'ratio':<9} {_ratio(record)}, goal at most {record['goal']}; all {record['equal_answers']} answers equal",
    ]
