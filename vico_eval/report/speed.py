"""Measured speed as tables: a method's stages, its speed-ups beside their bounds, and ViCO's Table 4.

What comes in are the records that `vico-eval throughput` writes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np

from vico_eval.report.grid import DASH, Cell, Column, Grid, Line
from vico_eval.report.printed_table4 import printed_table4

_QUARTILES = "Speed-ups and times: median (quartiles) over the rounds of one process."
_BOUND = (
    "Bound: the ratio of operations (vico_eval/bench/flops.py); shorter sequences may use caches better, so that a "
    "measured speed-up can be above it."
)

_PAPER_TOKENS = 2560
"""Visual tokens of the paper's 10 tiles: a checkpoint with others is not to be compared with it."""

TABLE4_COLUMNS = (
    Column(title="Prefill", group="LLM only"),
    Column(title="Speed-up", group="LLM only"),
    Column(title="Bound", group="LLM only"),
    Column(title="Paper (8B)", group="LLM only"),
    Column(title="First token", group="End-to-end"),
    Column(title="Speed-up", group="End-to-end"),
    Column(title="Bound", group="End-to-end"),
)


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
        shrinks=True,
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
        shrinks=True,
    )


def table4_grid(record: Mapping[str, Any]) -> Grid:
    """ViCO's Table 4: the language model alone and end-to-end, each beside its bound, and what the paper prints.

    Raises:
        ReportError: the published numbers can't be read.
    """
    is_papers = record["cells"][0]["visual_tokens"] == _PAPER_TOKENS
    printed = printed_table4()["8B"] if is_papers else {}
    encoder = record["encoder_s"]
    lines = []
    for cell in record["cells"]:
        text, share = cell["text_tokens"], cell["compression"]
        first_token = [one + own for one, own in zip(encoder, cell["prefill_s"], strict=True)]
        paper = printed.get((text, share))
        cells = [
            f"{median(cell['prefill_s']):.3g} s",
            *_speedup(cell["llm"]),
            DASH if paper is None else paper,
            f"{median(first_token):.3g} s",
            *_speedup(cell["end_to_end"]),
        ]
        titles = [f"{text}", f"{cell['visual_tokens']:,}", f"{share}%"]
        lines.append(_line(titles, cells, rule_after=cell is not record["cells"][-1] and share == 75))
    notes = (
        f"{_model(record)}. One request at a time; the paper loads a serving engine with 32. End-to-end: the vision "
        "encoder's time on the 10 tiles added, without tiling, router and connectors; the paper leaves the encoder out "
        f"and has no such column. {_count(record['rounds'], 'round')}. {_QUARTILES} {_BOUND}",
    )
    return Grid(
        caption="First token of 10 tiles with fewer visual tokens, as in ViCO's Table 4.",
        heads=("Text tokens", "Visual tokens", "Compression"),
        columns=TABLE4_COLUMNS,
        lines=tuple(lines),
        notes=notes,
        shrinks=True,
    )


def grids(record: Mapping[str, Any]) -> dict[str, Grid]:
    """A record's tables, by what their files' names end in."""
    if "cells" in record:
        return {"": table4_grid(record)}
    return {"-stages": stages_grid(record), "-speedups": speedups_grid(record)}


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


def _line(titles: Sequence[str], cells: Sequence[str], *, rule_after: bool = False) -> Line:
    return Line(
        titles=tuple(Cell(text=text) for text in titles),
        cells=tuple(Cell(text=text) for text in cells),
        rule_after=rule_after,
    )
