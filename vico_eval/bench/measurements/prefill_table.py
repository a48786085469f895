"""The README of the records of `benchmarks/prefill.py`, and the script's printed summary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from vico_eval.bench.records import records_table

MIB = 2**20


def readme(records: dict[str, dict[str, Any]]) -> str:
    """Render the README of the records."""
    lines = [
        "# Prefill time saved by methods",
        "",
        "Prefill of one request in a decoder with random weights, without the vision encoder, until the last token's",
        "logits are computed. Every method keeps half of the visual tokens, either at the decoder's input or on",
        "average over its layers. Written by `benchmarks/prefill.py`; `docs/speed.md` explains the columns.",
    ]
    for name, record in records.items():
        lines += ["", *_section(name, record)]
    lines += ["", *records_table(records)]
    return "\n".join(lines) + "\n"


def _section(name: str, record: Mapping[str, Any]) -> list[str]:
    where = f"{record['processor']}, {record['threads']} threads, {record['dtype']}, {record['attention']}"
    plain = record["plain"]
    lines = [
        f"## {name}",
        "",
        f"Qwen3 {record['size']}, {record['visual_tokens']} visual and {record['text_tokens']} text tokens; {where}.",
        "",
        "| method | visual tokens | time | speed-up | bound | share of bound | own time | own operations "
        "| peak memory | break-even |",
        "|:--|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
        f"| plain | 100% | {np.median(plain['seconds']):.3g} s | | | | | | {plain['peak_bytes'] / MIB:.0f} MiB | |",
    ]
    for title, system in record["systems"].items():
        low, high = system["speedup_quartiles"]
        lines.append(
            f"| {title} | {system['mean_visual_share']:.1%} | {np.median(system['seconds']):.3g} s "
            f"| {system['speedup']:.2f} ({low:.2f} to {high:.2f}) | {system['bound']:.2f} "
            f"| {system['share_of_bound']:.0%} | {system['own_share']:.2%} | {system['own_tflop_share']:.2%} "
            f"| {system['peak_bytes'] / MIB:.0f} MiB | {_break_even(record, system)} |"
        )
    lines += [f"| {title} | | | {reason} | | | | | | |" for title, reason in record["unreachable"].items()]
    scores = ", ".join(
        f"`{rows}` {entry['share']:.2%} of the plain prefill's time and {entry['tflop_share']:.2%} of its operations"
        for rows, entry in record["encoder_scores"].items()
    )
    return [*lines, "", f"Cost of scores from the vision encoder, for methods that need them: {scores}."]


def _break_even(record: Mapping[str, Any], system: Mapping[str, Any]) -> str:
    if "break_even" not in system:
        return ""  # this system removes no tokens
    first = system["break_even"]
    return f"none up to {record['visual_tokens']}" if first is None else str(first)


def summary(record: Mapping[str, Any]) -> list[str]:
    """Return one line per system."""
    lines = [
        f"{title:<16} {system['speedup']:.3f}  bound {system['bound']:.3f}  own time {system['own_share']:.2%}  "
        f"peak {system['peak_bytes'] / record['plain']['peak_bytes']:.0%} of plain  "
        f"break-even {_break_even(record, system) or '-'}"
        for title, system in record["systems"].items()
    ]
    return lines + [f"{title:<16} {reason}" for title, reason in record["unreachable"].items()]
