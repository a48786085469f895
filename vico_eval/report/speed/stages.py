"""Tables of measured speed: stages of a method, speed-ups with their bounds, and ViCO's Table 4.

The input is a record that `vico-eval throughput` wrote.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np

from vico_eval.report.speed.ratio import mean_ratio
from vico_eval.report.speed.table4 import (
    VISUAL_TOKENS,
    Prompt,
    Quantity,
    Speedup,
    bound_speedups,
    paper_speedups,
    table4_csv,
    table4_grid,
)
from vico_eval.report.tables.grid import DASH, Column, Grid, GridCell, Line, grid_to_csv

_QUARTILES = "Speed-ups and times are medians (quartiles) over the rounds of one process."
_BOUND = (
    "Bound is the ratio of operations (vico_eval/bench/flops.py). Shorter sequences may use caches better, so a "
    "measured speed-up can exceed it."
)

_QUANTITIES: dict[str, Quantity] = {"llm": "llm_only", "end_to_end": "end_to_end"}
"""Quantities of Table 4, by the record's key."""


def stages_grid(record: Mapping[str, Any]) -> Grid:
    """The time of each stage by method, with rates and memory."""
    entries: Mapping[str, Any] = record["methods"]
    stages = [stage for stage in record["stages"] if any(stage in entry["stage_s"] for entry in entries.values())]
    rates = {"requests": "Requests/s", "visual_tokens": "Visual tokens/s", "generated_tokens": "Generated tokens/s"}
    columns = [
        *(Column(title=f"{stage.capitalize()}, ms") for stage in (*stages, "other", "whole", "first token")),
        *(Column(title=title) for title in rates.values()),
        Column(title="Peak memory"),
    ]
    lines = []
    for name, entry in entries.items():
        times = [entry["stage_s"].get(stage) for stage in stages]
        times += [entry["other_s"], entry["whole_s"], entry["first_token_s"]]
        memory = entry["peak_memory_gib"]
        cells = [
            *(_interval(None if one is None else [1e3 * second for second in one], ".1f") for one in times),
            *(_interval(entry["per_s"][rate], form) for rate, form in zip(rates, (".3g", ".0f", ".0f"), strict=True)),
            DASH if memory is None else f"{memory:.2f} GiB",
        ]
        lines.append(_line([name], cells))
    notes = (
        f"{_count(record['batch_size'], 'request')} of {_per_request(entries, 'tiles')} tiles and "
        f"{_per_request(entries, 'text_tokens')} text tokens, answered in one batch. Median (quartiles) over "
        f"{_count(record['rounds'], 'round')} of one process, in which the methods take turns. Method is its own "
        "computation to choose tokens. Other is the time between stages. Visual tokens/s counts tokens entering the "
        "decoder, over the time of method and prefill. Generated tokens/s is over decode. Peak memory is that of the "
        "GPU; it is not measured on a CPU.",
    )
    return Grid(
        caption=f"Time by stage of the engine: {_model(record)}.",
        heads=("Method",),
        columns=tuple(columns),
        lines=tuple(lines),
        notes=notes,
    )


def speedups_grid(record: Mapping[str, Any]) -> Grid:
    """Speed-ups by method with their bounds, and the underlying operations."""
    columns = (
        Column(title="Compressed tiles"),
        Column(title="Visual tokens"),
        Column(title="Speed-up", group="LLM only"),
        Column(title="Bound", group="LLM only"),
        Column(title="Speed-up", group="End-to-end"),
        Column(title="Bound", group="End-to-end"),
        Column(title="GFLOP"),
        Column(title="By formula"),
    )
    lines = []
    for name, entry in record["methods"].items():
        request = entry["per_request"]
        layers = request["visual_tokens_per_layer"]
        known = [flops for flops in entry["flops"].values() if flops["comparable"] is not None]
        counted, formula = (sum(flops[of] for flops in known) for of in ("counted", "comparable"))
        cells = [
            f"{request['compressed_tiles']:.1f} of {request['tiles']:.0f}",
            f"{sum(layers) / len(layers):.0f}",
            *(text for of in ("llm", "end_to_end") for text in _speedup(entry["speedups"][of])),
            f"{counted / entry['batch_size'] / 1e9:.3g}",
            f"{formula / counted:.1%}" if counted else DASH,
        ]
        lines.append(_line([name], cells))
    baseline = next(iter(record["methods"]))
    notes = (
        f"Relative to {baseline}. LLM only is prefill, including the method's own computation. End-to-end is the time "
        "to the first token; its bound has vision encoder, router, connectors and prefill in series. Visual tokens "
        "are per request, averaged over layers.",
        f"{_QUARTILES} {_BOUND}",
        "GFLOP is PyTorch's count for a request's stages that have a formula, including the full square of causal "
        "attention and padding. By formula is our formulas' share of it for the same work. Bounds count half of that "
        "square.",
    )
    return Grid(
        caption=f"Speed-up of methods and its bound: {_model(record)}.",
        heads=("Method",),
        columns=columns,
        lines=tuple(lines),
        notes=notes,
    )


def table4_speedups(record: Mapping[str, Any]) -> list[Speedup]:
    """A record's numbers for Table 4, including the paper's if its prompts were measured.

    Raises:
        ReportError: the published numbers can't be read.
    """
    bounds: dict[Prompt, dict[Quantity, float | None]] = {}
    measured = []
    for cell in record["cells"]:
        prompt = (cell["text_tokens"], cell["compression"])
        bounds[prompt] = {quantity: cell[key]["bound"] for key, quantity in _QUANTITIES.items()}
        for key, quantity in _QUANTITIES.items():
            ratio = mean_ratio(cell[key]["measured"])
            measured.append(
                Speedup(source="measured", system=record["model"], prompt=prompt, quantity=quantity, ratio=ratio)
            )
    return [*(paper_speedups() if _is_papers(record) else ()), *bound_speedups(bounds), *measured]


def _table4_notes(record: Mapping[str, Any]) -> list[str]:
    tiles = record["cells"][0]["visual_tokens"]
    whole = [cell for cell in record["cells"] if cell["compression"] == 0]
    prefills = " and ".join(f"{median(cell['prefill_s']):.3g} s with {cell['text_tokens']}" for cell in whole)
    notes = [
        f"{_model(record)}; {_count(record['rounds'], 'round')} of one process, one request at a time. LLM only is the "
        "prefill time. End-to-end adds the vision encoder on the 10 tiles, without tiling, router and connectors. "
        f"Medians at 0%: prefill {prefills} text tokens, vision encoder {median(record['encoder_s']):.3g} s."
    ]
    if not _is_papers(record):
        notes.append(
            f"Not comparable with the paper: 10 tiles are {tiles:,} visual tokens here and {VISUAL_TOKENS:,} there."
        )
    return notes


def _is_papers(record: Mapping[str, Any]) -> bool:
    """True if the prompts were the paper's."""
    return bool(record["cells"][0]["visual_tokens"] == VISUAL_TOKENS)


def grids(record: Mapping[str, Any]) -> dict[str, Grid]:
    """A record's tables, by the suffix of their files' names.

    Raises:
        ReportError: the published numbers can't be read.
    """
    if "cells" in record:
        return {"": table4_grid(table4_speedups(record), _table4_notes(record))}
    return {"-stages": stages_grid(record), "-speedups": speedups_grid(record)}


def csvs(record: Mapping[str, Any]) -> dict[str, str]:
    """The same tables as CSV: Table 4 with one number per line, the others as laid out.

    Raises:
        ReportError: the published numbers can't be read.
    """
    if "cells" in record:
        return {"": table4_csv(table4_speedups(record))}
    return {suffix: grid_to_csv(grid) for suffix, grid in grids(record).items()}


def _model(record: Mapping[str, Any]) -> str:
    return (
        f"{record['model']}, {record['dtype']}, {record['attention']}, {record['processor']}, "
        f"{_count(record['threads'], 'thread')}"
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _per_request(entries: Mapping[str, Any], name: str) -> str:
    """One number if all methods agree, else the range."""
    values = [entry["per_request"][name] for entry in entries.values()]
    low, high = (f"{value:.0f}" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def _speedup(entry: Mapping[str, Any]) -> tuple[str, str]:
    bound = entry["bound"]
    return _interval(entry["measured"], ".2f"), DASH if bound is None else f"{bound:.2f}"


def _interval(values: Sequence[float] | None, form: str) -> str:
    """The median with quartiles over rounds, as text."""
    if values is None:
        return DASH
    low, middle, high = (f"{value:{form}}" for value in np.quantile(values, [0.25, 0.5, 0.75]))
    return f"{middle} ({low} to {high})"


def _line(titles: Sequence[str], cells: Sequence[str]) -> Line:
    return Line(
        titles=tuple(GridCell(text=text) for text in titles), cells=tuple(GridCell(text=text) for text in cells)
    )
