"""The engine's speed by stage and method, with the bounds that follow from its operations.

Every method answers the same batch, which repeats one image of the built-in benchmark, resized to 3 x 3 tiles, with its
question. All methods share one model, and every round runs all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from vico_eval.bench import stages
from vico_eval.bench.flops import (
    connector_flops,
    decode_flops,
    flop_counter,
    prefill_flops,
    router_flops,
    vision_flops,
)
from vico_eval.bench.records import in_rounds
from vico_eval.bench.stages import MeasuredEngine, StageTimes
from vico_eval.engine.preprocess_settings import PreprocessSettings
from vico_eval.engine.requests import GenerationSettings, ImageInput, Message, Request, Text
from vico_eval.errors import ConfigError
from vico_eval.families.clock import seconds_on
from vico_eval.families.internvl.config import VicoInternVLConfig
from vico_eval.families.internvl.facts import facts_of
from vico_eval.families.internvl.modeling import VicoInternVL
from vico_eval.methods import registry
from vico_eval.methods.interface import LOW
from vico_eval.methods.registry import Method
from vico_eval.runs.schema import TokenAccount
from vico_eval.stages import METHOD
from vico_eval.tiny.scenes import make_scene

GRID = 3
TILES = GRID**2 + 1
"""The number of the image's tiles with the thumbnail, the same as in ViCO's Table 4."""

NEW_TOKENS = 16
"""The maximum number of new tokens; a trained model ends its answer earlier."""


@dataclass(frozen=True)
class MeasuredRun:
    """One method's run in one round."""

    times: StageTimes
    peak_memory: int | None
    """Peak GPU memory in bytes, including weights. None on a CPU, where PyTorch does not measure it."""


def build_methods(
    names: Sequence[str], config: VicoInternVLConfig, checkpoint: str, arguments: Mapping[str, Any] | None = None
) -> list[Method]:
    """Build methods and check that a checkpoint can run them.

    Args:
        names: methods, each a single name or several joined by `+`.
        config: the checkpoint's configuration.
        checkpoint: its name, for messages.
        arguments: hyper-parameters; each is passed to all methods that accept it.

    Raises:
        ConfigError: a method is unknown, named twice or needs a second checkpoint, or no method accepts an argument.
        CheckpointError: the checkpoint lacks what a method needs.
    """
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"got methods {', '.join(names) or 'none'}; expected one or more, without repetition.")
    given = dict(arguments or {})
    known = {name: registry.spellings(name) for name in names}
    if unknown := sorted(set(given) - set().union(*known.values())):
        raise ConfigError(f"none of the methods {', '.join(names)} has an argument {', '.join(map(repr, unknown))}.")
    methods = [registry.build(name, {key: given[key] for key in set(given) & known[name]}).resolved() for name in names]
    for method in methods:
        if method.needs_donor:
            raise ConfigError(
                f"method {method.name!r} uses parts of a second checkpoint, but only one checkpoint is measured here. "
                "Leave it out; its stages are the same as those of `vico`."
            )
        method.check(facts_of(config, checkpoint))
    return methods


def measure_methods(
    model: VicoInternVL,
    tokenizer: PreTrainedTokenizerBase,
    methods: Sequence[Method],
    *,
    batch_size: int,
    rounds: int,
    minutes: float,
) -> dict[str, Any]:
    """Measure every method's stages, rates, memory and operations, and its speed-ups over the first method.

    Args:
        model: the model on its device.
        tokenizer: the model's tokenizer.
        methods: from `build_methods`.
        batch_size: number of requests answered together.
        rounds: the maximum number of rounds.
        minutes: the time limit for all rounds together.
    """
    # The counter registers backward hooks on tensors that require gradients, which inference mode does not allow.
    model.requires_grad_(False)
    settings = PreprocessSettings(max_tiles=GRID**2)
    requests = _requests(model.config.tile_size, batch_size)
    engines = {method.name: MeasuredEngine(model, tokenizer, settings, method, batch_size) for method in methods}
    counted = {name: _counted(engine, requests) for name, engine in engines.items()}
    runs = in_rounds(
        {name: partial(_run, engine, requests, model.decoder_device) for name, engine in engines.items()},
        rounds,
        minutes,
    )
    entries = {
        method.name: _entry(model.config, method, runs[method.name], *counted[method.name]) for method in methods
    }
    baseline = entries[methods[0].name]
    for entry in entries.values():
        entry["speedups"] = speedups(baseline, entry)
    return entries


def speedups(baseline: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[str, Any]:
    """Compute a method's speed-ups in each round, and their bounds by operations.

    Returns:
        `llm`: prefill plus the method's own work. `end_to_end`: time to the first token, with a bound from vision
        encoder, router, connectors and prefill in series. Each has `measured` [rounds] and `bound`, which is None if
        there is no formula.
    """

    def ratio(seconds_of: Callable[[Mapping[str, Any]], Sequence[float]]) -> list[float]:
        return [whole / less for whole, less in zip(seconds_of(baseline), seconds_of(entry), strict=True)]

    def bound(of: Sequence[str]) -> float | None:
        sums = [[one["flops"][stage]["formula"] for stage in of if stage in one["flops"]] for one in (baseline, entry)]
        return None if None in sums[0] + sums[1] else sum(sums[0]) / sum(sums[1])

    series = (stages.VISION, stages.ROUTER, stages.CONNECTORS, stages.PREFILL)
    return {
        "llm": {"measured": ratio(_llm_seconds), "bound": bound([stages.PREFILL])},
        "end_to_end": {"measured": ratio(lambda one: one["first_token_s"]), "bound": bound(series)},
    }


def _llm_seconds(entry: Mapping[str, Any]) -> list[float]:
    of = [entry["stage_s"][stage] for stage in (METHOD, stages.PREFILL) if stage in entry["stage_s"]]
    return [sum(parts) for parts in zip(*of, strict=True)]


def _requests(tile_size: int, number: int) -> list[Request]:
    scene = make_scene("doc", np.random.default_rng(0), (GRID, GRID))
    picture = scene.images[0].resize((GRID * tile_size, GRID * tile_size))
    message = Message("user", (ImageInput(picture), Text(scene.questions[0].text)))
    generation = GenerationSettings(max_new_tokens=NEW_TOKENS)
    return [Request(key=f"speed/test/{place}", messages=(message,), generation=generation) for place in range(number)]


def _run(engine: MeasuredEngine, requests: list[Request], device: torch.device) -> MeasuredRun:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    times, _ = engine.answer(requests, lambda: seconds_on(device))
    return MeasuredRun(times, torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None)


def _counted(engine: MeasuredEngine, requests: list[Request]) -> tuple[dict[str, int], list[TokenAccount]]:
    """Return the operations that PyTorch counts in each stage, and the token accounts."""
    with flop_counter() as counter:
        flops, accounts = engine.answer(requests, counter.get_total_flops)
    return {stage: int(count) for stage, count in flops.stages.items()}, accounts


def _entry(
    config: VicoInternVLConfig,
    method: Method,
    runs: Sequence[MeasuredRun],
    counted: Mapping[str, int],
    accounts: Sequence[TokenAccount],
) -> dict[str, Any]:
    """Build a method's record entry without speed-ups. Seconds are per batch, counts per request."""
    times = [run.times for run in runs]
    stage_s = {stage: [one.stages[stage] for one in times] for stage in counted}
    whole_s = [one.whole for one in times]
    memory = [run.peak_memory for run in runs if run.peak_memory is not None]
    batch = len(accounts)
    mean = {
        name: fmean(getattr(account, name) for account in accounts)
        for name in ("tiles", "compressed_tiles", "visual_tokens", "text_tokens", "generated_tokens")
    }
    entry: dict[str, Any] = {
        "arguments": method.arguments(),
        "batch_size": batch,
        "per_request": mean | {"visual_tokens_per_layer": _mean_layers(accounts)},
        "stage_s": stage_s,
        "other_s": [one.whole - sum(one.stages.values()) for one in times],
        "whole_s": whole_s,
        "first_token_s": [one.first_token for one in times],
        "peak_memory_gib": max(memory) / 2**30 if memory else None,
        "flops": stage_flops(config, method, counted, accounts),
    }
    visual, generated = batch * mean["visual_tokens"], batch * (mean["generated_tokens"] - 1)
    decode_s = stage_s.get(stages.DECODE)
    entry["per_s"] = {
        "requests": [batch / one for one in whole_s],
        "visual_tokens": [visual / one for one in _llm_seconds(entry)],
        "generated_tokens": [generated / one for one in decode_s] if decode_s and generated else None,
    }
    return entry


def _mean_layers(accounts: Sequence[TokenAccount]) -> list[float]:
    return [fmean(layer) for layer in zip(*(account.visual_tokens_per_layer for account in accounts), strict=True)]


def stage_flops(
    config: VicoInternVLConfig, method: Method, counted: Mapping[str, int], accounts: Sequence[TokenAccount]
) -> dict[str, dict[str, int | None]]:
    """Return the batch's operations by stage: `counted` by PyTorch, `formula` for the bound, and `comparable`.

    `comparable` is the formula for the work that PyTorch counts, with causal attention as a full square and every
    request padded to the longest in the batch. Values are None where there is no formula, as for the method's own work.
    """
    tokens = [[visual + account.text_tokens for visual in account.visual_tokens_per_layer] for account in accounts]
    padded = [max(layer) for layer in zip(*tokens, strict=True)]
    longest = max(account.generated_tokens for account in accounts)
    tiles = sum(account.tiles for account in accounts)
    # Methods that shorten a tile's full tokens have the high connector compute them first.
    takes_low = method.connector is not None and LOW in method.connector.routes
    low = sum(account.compressed_tiles for account in accounts) if takes_low else 0
    text_config = config.text_config
    formula: dict[str, int | None] = {
        stages.VISION: tiles * vision_flops(config),
        stages.ROUTER: tiles * router_flops(config) if "router" in config.parts else None,
        stages.CONNECTORS: connector_flops(config, tiles - low, low) if "pvtc" not in config.parts else None,
        stages.PREFILL: sum(prefill_flops(text_config, one, last_token_only=True).total for one in tokens),
        stages.DECODE: sum(
            decode_flops(text_config, one, account.generated_tokens - 1)
            for one, account in zip(tokens, accounts, strict=True)
        ),
    }
    comparable = formula | {
        stages.PREFILL: len(accounts) * prefill_flops(text_config, padded, last_token_only=True).full_square,
        stages.DECODE: len(accounts) * decode_flops(text_config, padded, longest - 1),
    }
    return {
        stage: {"counted": counted[stage], "formula": formula.get(stage), "comparable": comparable.get(stage)}
        for stage in counted
        if stage != stages.TILING
    }
