"""The prefill time saved by methods that act before or inside the decoder, and their own cost.

Each method runs between two plain runs and is compared with their mean, so that disturbances of the machine affect
both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from vico_eval.bench.encoder_scores import measure_scores
from vico_eval.bench.flops import prefill_flops
from vico_eval.bench.measurements.break_even import break_even, sizes
from vico_eval.bench.method_operations import counted_operations, loop_operations
from vico_eval.bench.prefill_runs import Bench, Plain, Run, Settings, run_of
from vico_eval.bench.random_models import flash_config
from vico_eval.bench.random_visual import TILE_TOKENS
from vico_eval.bench.records import SIZES, beside_neighbours, conditions, in_turns, neighbours
from vico_eval.errors import ConfigError
from vico_eval.families.internvl.facts import facts_of
from vico_eval.methods import registry
from vico_eval.methods.registry import Method

KEEP = {"keep_ratio": 0.5}
TARGET = {"target_ratio": 0.5}
"""All methods keep the same share of visual tokens, at the decoder's input or on average over its layers."""

System = tuple[str, dict[str, Any]]

SYSTEMS: dict[str, System] = {
    "keep_everything": ("fastv", {"keep_ratio": 1.0}),
    "random_tokens": ("random_tokens", KEEP),
    "top_attention": ("top_attention", KEEP),
    "divprune": ("divprune", KEEP),
    "visionzip": ("visionzip", KEEP),
    "vispruner": ("vispruner", KEEP),
    "cdpruner": ("cdpruner", KEEP),
    "holov": ("holov", KEEP),
    "fastv": ("fastv", TARGET),
    "sparsevlm": ("sparsevlm", TARGET),
    "pyramiddrop": ("pyramiddrop", TARGET),
    "dart": ("dart", TARGET),
    "fitprune": ("fitprune", TARGET | {"recipe": "llava"}),
}
"""Title -> method and its arguments."""


def measure(settings: Settings, rounds: int, titles: Sequence[str] = tuple(SYSTEMS)) -> dict[str, Any]:
    """Measure times [rounds], counts, memory and break-even of each system and the plain prefill; return the record."""
    bench = Bench(settings)
    methods, unreachable = reachable({title: SYSTEMS[title] for title in titles}, settings.size)
    runs = {title: run_of(bench, settings.visual_tokens, method) for title, method in methods.items()}
    whole = Plain(bench, settings.visual_tokens)
    # These untimed runs are also the warm-up, in which kernels are chosen and memory is allocated.
    plain = {"tflop": _tflop(bench, _visual(whole)), "peak_bytes": whole.peak_bytes()}
    described = {title: _described(bench, title, run) for title, run in runs.items()}
    plain_s, _ = in_turns(whole.seconds, {title: run.seconds for title, run in runs.items()}, rounds)
    for place, (title, entry) in enumerate(described.items()):
        entry |= _compared(entry, plain["tflop"], plain_s, runs[title], place)
    saving = {title: methods[title] for title, entry in described.items() if entry["mean_visual_share"] < 1}
    for title, first in break_even(bench, saving, sizes(below=settings.visual_tokens)).items():
        pays = described[title]["speedup_quartiles"][0] > 1
        described[title]["break_even"] = settings.visual_tokens if first is None and pays else first
    num_tiles = max(1, settings.visual_tokens // TILE_TOKENS)
    scores = measure_scores(settings.size, num_tiles, rounds, device=settings.device, dtype=settings.dtype)
    for entry in scores.values():
        entry["share"] = float(np.median(entry["seconds"]) / np.median(plain_s))
        entry["tflop_share"] = entry["tflop"] / plain["tflop"]
    return {
        **conditions("benchmarks/prefill.py", settings.device),
        "size": settings.size,
        "shape": SIZES[settings.size],
        "visual_tokens": settings.visual_tokens,
        "text_tokens": settings.text_tokens,
        "dtype": settings.dtype,
        "attention": settings.attention,
        "rounds": rounds,
        "plain": plain | {"seconds": plain_s},
        "systems": described,
        "unreachable": unreachable,
        "encoder_scores": scores,
    }


def reachable(systems: Mapping[str, System], size: str) -> tuple[dict[str, Method], dict[str, str]]:
    """Return the systems' methods by title, and the reason for those whose share this decoder size can't reach."""
    facts = facts_of(flash_config(size), f"Qwen3 {size}")
    methods, unreachable = {}, {}
    for title, system in systems.items():
        method = registry.build(*system)
        try:
            method.check(facts)
        except ConfigError as error:
            unreachable[title] = str(error)
        else:
            methods[title] = method
    return methods, unreachable


@torch.inference_mode()
def _visual(run: Run) -> list[int]:
    return run()


def _tflop(bench: Bench, visual: Sequence[int]) -> float:
    """Return the TFLOP of a prefill up to the last token's logits, given the visual tokens of each layer."""
    return prefill_flops(bench.config, [count + bench.settings.text_tokens for count in visual]).total / 1e12


def _described(bench: Bench, title: str, run: Run) -> dict[str, Any]:
    """Return a system's record entry without its times."""
    visual: list[int] = []
    own = counted_operations(lambda: visual.extend(_visual(run)))
    method, arguments = SYSTEMS[title]
    own += loop_operations(method, bench.settings.visual_tokens, visual[0])
    return {
        "method": method,
        "arguments": arguments,
        "visual_tokens_per_layer": visual,
        "mean_visual_share": sum(visual) / len(visual) / bench.settings.visual_tokens,
        "tflop": _tflop(bench, visual),
        "own_tflop": own / 1e12,
        "peak_bytes": run.peak_bytes(),
    }


def _compared(
    entry: Mapping[str, Any], plain_tflop: float, plain_s: Sequence[Sequence[float]], run: Run, place: int
) -> dict[str, Any]:
    """Compare a system's times with those of the plain runs around it."""
    found = beside_neighbours(plain_s, run.seconds_taken, place)
    own_shares = np.divide(run.own_seconds, neighbours(plain_s, place))
    return found | {
        "bound": plain_tflop / entry["tflop"],
        "share_of_bound": found["speedup"] * entry["tflop"] / plain_tflop,
        "own_seconds": run.own_seconds,
        "own_share": float(np.median(own_shares)),
        "own_tflop_share": entry["own_tflop"] / plain_tflop,
    }
