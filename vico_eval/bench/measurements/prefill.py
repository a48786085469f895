"""How much faster methods in the decoder prefill, beside the bound that their operations give.

Random weights of a real shape: time does not depend on what tokens say. Plain runs stand between the others, and a
method's time is compared with the mean of its two neighbours, so that a slower minute of the machine slows both.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from transformers import Qwen3ForCausalLM

from vico_eval.bench.flops import prefill_flops
from vico_eval.bench.random_models import decoder_config
from vico_eval.bench.records import SIZES, beside_neighbours, conditions, in_turns, records_table
from vico_eval.engine.cpu import prepare_for_cpu
from vico_eval.families.decoder.decoder import CompressingDecoder
from vico_eval.families.decoder.segments import Prompt, PromptCache
from vico_eval.methods import registry

SYSTEMS: dict[str, tuple[str, dict[str, Any]]] = {
    "keep everything": ("fastv", {"keep_ratio": 1.0}),
    "fastv K=2 R=0.5": ("fastv", {"layer": 2, "keep_ratio": 0.5}),
    "sparsevlm topk": ("sparsevlm", {}),
    "sparsevlm topk, target 0.5": ("sparsevlm", {"target_ratio": 0.5}),
}
"""Title -> method and its arguments."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is prefilled and on what."""

    size: str
    """Of the decoder, a name in `SIZES`."""

    visual_tokens: int
    text_tokens: int
    device: str
    dtype: str
    attention: str
    """Transformers' name of the kernel."""


class Bench:
    """A random model and one prompt, prefilled plainly or through a method."""

    def __init__(self, settings: Settings) -> None:
        torch.manual_seed(0)
        visual, text = settings.visual_tokens, settings.text_tokens
        self.config = decoder_config(settings.size, attn_implementation=settings.attention)
        with torch.device(settings.device):
            self.model = Qwen3ForCausalLM._from_config(self.config, dtype=getattr(torch, settings.dtype)).eval()
        if settings.device == "cpu":
            prepare_for_cpu(self.model)  # as `open_engine` does
        self.plain = self.model.model
        self.text = text
        # Half of the text stands before the image, as a system prompt does, and half behind it.
        self.is_visual = torch.zeros(1, visual + text, dtype=torch.bool, device=settings.device)
        self.is_visual[:, text // 2 : text // 2 + visual] = True
        self.embeddings = torch.randn(1, visual + text, self.config.hidden_size).to(self.model.device, self.model.dtype)

    def decoder(self, method: str, arguments: dict[str, Any]) -> CompressingDecoder:
        """The model's own layers with a method's part."""
        part = registry.build(method, arguments).decoder
        assert part is not None
        return CompressingDecoder(self.plain, part)

    @torch.inference_mode()
    def prefill(self, decoder: Any) -> tuple[float, Any]:
        """Seconds until the last token's logits are there, and the cache."""
        self.model.model = decoder
        cache = None
        if isinstance(decoder, CompressingDecoder):
            cache = PromptCache(self.config, Prompt(self.is_visual, ("prefill",)))
        self._wait()
        start = time.perf_counter()
        output = self.model(inputs_embeds=self.embeddings, past_key_values=cache, use_cache=True, logits_to_keep=1)
        self._wait()
        return time.perf_counter() - start, output.past_key_values

    def _wait(self) -> None:
        if self.embeddings.is_cuda:
            torch.cuda.synchronize()


def measure(settings: Settings, rounds: int) -> dict[str, Any]:
    """The record: times [rounds] of every system and of the plain runs around it, with counts and bounds."""
    return {
        **conditions("benchmarks/prefill.py", settings.device),
        "size": settings.size,
        "shape": SIZES[settings.size],
        "visual_tokens": settings.visual_tokens,
        "text_tokens": settings.text_tokens,
        "dtype": settings.dtype,
        "attention": settings.attention,
        "rounds": rounds,
        **_compare(Bench(settings), rounds),
    }


def _compare(bench: Bench, rounds: int) -> dict[str, Any]:
    decoders = {title: bench.decoder(*system) for title, system in SYSTEMS.items()}
    num_tokens = bench.is_visual.shape[1]
    plain_flops = prefill_flops(bench.config, [num_tokens] * bench.config.num_hidden_layers).total
    # Once without the clock: kernels are chosen and memory is taken in first runs.
    bench.prefill(bench.plain)
    visual = {title: bench.prefill(decoder)[1].visual_tokens_per_layer(0) for title, decoder in decoders.items()}
    plain_s, method_s = in_turns(
        lambda: bench.prefill(bench.plain)[0],
        {title: partial(lambda own: bench.prefill(own)[0], decoder) for title, decoder in decoders.items()},
        rounds,
    )
    systems = {
        title: _entry(bench, title, visual[title], plain_flops, beside_neighbours(plain_s, seconds, place))
        for place, (title, seconds) in enumerate(method_s.items())
    }
    return {"plain": {"tflop": plain_flops / 1e12, "seconds": plain_s}, "systems": systems}


def _entry(
    bench: Bench, title: str, visual: list[int], plain_flops: int, compared: Mapping[str, Any]
) -> dict[str, Any]:
    """What a record says of a system with so many visual tokens in its layers."""
    flops = prefill_flops(bench.config, [count + bench.text for count in visual]).total
    method, arguments = SYSTEMS[title]
    return {
        "method": method,
        "arguments": arguments,
        "visual_tokens_per_layer": visual,
        "mean_visual_share": sum(visual) / len(visual) / int(bench.is_visual.sum()),
        "tflop": flops / 1e12,
        "bound": plain_flops / flops,
        **compared,
        "share_of_bound": compared["speedup"] * flops / plain_flops,
    }


def readme(records: dict[str, dict[str, Any]]) -> str:
    """The README beside the records."""
    lines = [
        "# Prefill time of methods in the decoder",
        "",
        "Speed-up: time of transformers' plain decoder over time of the method, both through the last token's logits,",
        "one request; median (quartiles) over the rounds of one process, in which plain runs stand between the others.",
        "Bound: the same ratio of operations (`vico_eval/bench/flops.py`), from the tokens that each layer really",
        "worked on; what a method computes to choose tokens is not in it, nor that shorter sequences may use caches",
        "better, so a measured one can be above it. Visual tokens: mean over layers. Weights are random. The records",
        "have every round's times: other work on the machine shows there. Written by `benchmarks/prefill.py`.",
        "",
        "| model | prompt | where | method | visual tokens | median time | speed-up | bound | of the bound |",
        "|:--|:--|:--|:--|--:|--:|--:|--:|--:|",
    ]
    for record in records.values():
        prompt = f"{record['visual_tokens']} visual + {record['text_tokens']} text"
        where = f"{record['processor']}, {record['dtype']}, {record['attention']}"
        start = f"| Qwen3 {record['size']} | {prompt} | {where} |"
        plain = np.median(record["plain"]["seconds"])
        lines.append(f"{start} plain | 100% | {plain:.3g} s | | | |")
        for title, system in record["systems"].items():
            low, high = system["speedup_quartiles"]
            lines.append(
                f"{start} {title} | {system['mean_visual_share']:.1%} | {np.median(system['seconds']):.3g} s "
                f"| {system['speedup']:.3f} ({low:.3f} to {high:.3f}) | {system['bound']:.3f} "
                f"| {system['share_of_bound']:.1%} |"
            )
    lines += ["", *records_table(records)]
    return "\n".join(lines) + "\n"


def summary(record: Mapping[str, Any]) -> list[str]:
    """A line for each system."""
    return [
        f"{title:<28} {system['speedup']:.3f}  bound {system['bound']:.3f}  {system['share_of_bound']:.1%}"
        for title, system in record["systems"].items()
    ]
