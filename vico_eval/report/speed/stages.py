"""Measured speed as tables: a method's stages, its speed-ups beside their bounds, and ViCO's Table 4.

What comes in are the records that `vico-eval throughput` writes.
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

_QUARTILES = "Speed-ups and times: median (quartiles) over the rounds of one process."
_BOUND = (
    "Bound: the ratio of operations (vico_eval/bench/flops.py); shorter sequences may use caches better, so that a "
    "measured speed-up can be above it."
)

_QUANTITIES: dict[str, Quantity] = {"llm": "llm_only", "end_to_end": "end_to_end"}
"""Of Table 4, by the record's key."""


def stages_grid(record: Mapping[str, Any]) -> Grid:
    """Seconds of each stage by method, with rates and memory."""
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
        f"{_per_request(entries, 'text_tokens')} tokens of text, answered together. Median (quartiles) over "
        f"{_count(record['rounds'], 'round')} of one process, in which the methods take turns. Method: what it "
        "computes to choose tokens. Other: what is between the stages. Visual tokens/s: those that enter the decoder, "
        "over method and prefill. Generated tokens/s: over decode. Peak memory: of the GPU; not measured on a CPU.",
    )
    return Grid(
        caption=f"Where the engine's time goes: {_model(record)}.",
        heads=("Method",),
        columns=tuple(columns),
        lines=tuple(lines),
        notes=notes,
    )


def speedups_grid(record: Mapping[str, Any]) -> Grid:
    """Speed-ups by method beside their bounds, and the operations that stand behind these."""
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
        f"Against {baseline}. LLM only: prefill with what the method computes. End-to-end: time to the first token; "
        "its bound has vision encoder, router, connectors and prefill in series. Visual tokens: of a request, mean "
        "over layers.",
        f"{_QUARTILES} {_BOUND}",
        "GFLOP: of a request's stages that a formula knows, as PyTorch counts them, full square of causal attention "
        "and padding included; by formula: the same work by our formulas. Bounds count half of that square.",
    )
    return Grid(
        caption=f"Speed-up of methods beside its bound: {_model(record)}.",
        heads=("Method",),
        columns=columns,
        lines=tuple(lines),
        notes=notes,
    )


def table4_speedups(record: Mapping[str, Any]) -> list[Speedup]:
    """A record's numbers of Table 4; the paper's are among them where its prompts were measured.

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
        f"{_model(record)}; {_count(record['rounds'], 'round')} of one process, one request at a time. LLM only: time "
        "of the prefill. End-to-end: with the vision encoder's on the 10 tiles, without tiling, router and connectors. "
        f"Medians at 0%: prefill {prefills} tokens of text, vision encoder {median(record['encoder_s']):.3g} s."
    ]
    if not _is_papers(record):
        notes.append(f"10 tiles are {tiles:,} visual tokens here and {VISUAL_TOKENS:,} in the paper: not comparable.")
    return notes


def _is_papers(record: Mapping[str, Any]) -> bool:
    """Whether the prompts were the paper's."""
    return bool(record["cells"][0]["visual_tokens"] == VISUAL_TOKENS)


def grids(record: Mapping[str, Any]) -> dict[str, Grid]:
    """A record's tables, by what their files' names end in.

    Raises:
        ReportError: the published numbers can't be read.
    """
    if "cells" in record:
        return {"": table4_grid(table4_speedups(record), _table4_notes(record))}
    return {"-stages": stages_grid(record), "-speedups": speedups_grid(record)}


def csvs(record: Mapping[str, Any]) -> dict[str, str]:
    """The same tables as CSV: Table 4 with a line a number, the others as laid out.

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
    """One number where all methods agree, else the range."""
    values = [entry["per_request"][name] for entry in entries.values()]
    low, high = (f"{value:.0f}" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def _speedup(entry: Mapping[str, Any]) -> tuple[str, str]:
    bound = entry["bound"]
    return _interval(entry["measured"], ".2f"), DASH if bound is None else f"{bound:.2f}"


def _interval(values: Sequence[float] | None, form: str) -> str:
    """Median and quartiles over rounds."""
    if values is None:
        return DASH
    low, middle, high = (f"{value:{form}}" for value in np.quantile(values, [0.25, 0.5, 0.75]))
    return f"{middle} ({low} to {high})"


def _line(titles: Sequence[str], cells: Sequence[str]) -> Line:
    return Line(
        titles=tuple(GridCell(text=text) for text in titles), cells=tuple(GridCell(text=text) for text in cells)
    )
