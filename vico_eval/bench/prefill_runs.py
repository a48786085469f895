"""Prefill of one prompt in a random decoder, without a method, with a selection before it, or with a part inside it.

Weights are random but have a real model's shapes, because time does not depend on the tokens' contents.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import Qwen3ForCausalLM

from vico_eval.bench.memory import peak_bytes
from vico_eval.bench.random_models import VISION_SIZES, decoder_config
from vico_eval.bench.random_visual import random_visual_tokens
from vico_eval.engine.cpu import prepare_for_cpu
from vico_eval.engine.selection import select
from vico_eval.families.decoder.decoder import CompressingDecoder
from vico_eval.families.decoder.segments import Prompt, PromptCache
from vico_eval.methods.interface import DecoderPart, SelectionPart
from vico_eval.methods.registry import Method
from vico_eval.stages import METHOD, observed_by


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The prompt, the decoder and the device of a measurement."""

    size: str
    """The decoder's size, a name in `SIZES`."""

    visual_tokens: int
    """Whole tiles of 256 tokens, or one smaller tile."""

    text_tokens: int
    """Half of them come before the image, like a system prompt, and half after it."""

    device: str
    dtype: str
    attention: str
    """The attention kernel's name in transformers."""


class Bench:
    """A random decoder and the text of a prompt."""

    def __init__(self, settings: Settings) -> None:
        torch.manual_seed(0)
        self.settings = settings
        self.config = decoder_config(settings.size, attn_implementation=settings.attention)
        with torch.device(settings.device):
            self.model = Qwen3ForCausalLM._from_config(self.config, dtype=getattr(torch, settings.dtype)).eval()
        if settings.device == "cpu":
            prepare_for_cpu(self.model)  # as `open_engine` does
        self.plain = self.model.model
        text = torch.randn(settings.text_tokens, self.config.hidden_size).to(self.model.device, self.model.dtype)
        self.before, self.behind = text.split([settings.text_tokens // 2, (settings.text_tokens + 1) // 2])

    def prefill(self, visual: Tensor, decoder: Any = None, cache: PromptCache | None = None) -> None:
        """Compute the last token's logits for visual tokens [n, D] within the text."""
        self.model.model = self.plain if decoder is None else decoder
        embeddings = torch.cat([self.before, visual, self.behind])[None]
        self.model(inputs_embeds=embeddings, past_key_values=cache, use_cache=True, logits_to_keep=1)

    def wait(self) -> None:
        """Wait until the accelerator is idle."""
        if self.model.device.type == "cuda":
            torch.cuda.synchronize()


class Run(ABC):
    """A repeatable prefill with a given number of visual tokens."""

    def __init__(self, bench: Bench, num_visual: int, part: SelectionPart | None = None) -> None:
        self.bench = bench
        self.visual = random_visual_tokens(
            num_visual,
            frozenset() if part is None else part.needs,
            width=bench.config.hidden_size,
            vision_width=VISION_SIZES[bench.settings.size]["hidden_size"],
            device=bench.settings.device,
            dtype=bench.model.dtype,
        )
        self.seconds_taken: list[float] = []
        self.own_seconds: list[float] = []
        """The total seconds of each timed run, and those of the method itself."""

    @abstractmethod
    def __call__(self) -> list[int]:
        """Run once and return the number of visual tokens in each layer."""

    @torch.inference_mode()
    def seconds(self) -> float:
        """Run once and return the seconds until the last token's logits are computed."""
        own = 0.0

        @contextmanager
        def noted(name: str) -> Iterator[None]:
            nonlocal own
            if name != METHOD:
                yield
                return
            self.bench.wait()
            start = time.perf_counter()
            yield
            self.bench.wait()
            own += time.perf_counter() - start

        self.bench.wait()
        start = time.perf_counter()
        with observed_by(noted):
            self()
        self.bench.wait()
        whole = time.perf_counter() - start
        self.seconds_taken.append(whole)
        self.own_seconds.append(own)
        return whole

    @torch.inference_mode()
    def peak_bytes(self) -> int:
        """Return the run's peak memory in bytes, beyond weights and visual tokens."""
        return peak_bytes(self, self.bench.settings.device)


class Plain(Run):
    """A prefill with transformers' own decoder."""

    def __call__(self) -> list[int]:
        self.bench.prefill(self.visual.tokens)
        return [len(self.visual.tokens)] * self.bench.config.num_hidden_layers


class Selecting(Run):
    """A selection, followed by the plain prefill of the tokens that it keeps."""

    def __init__(self, bench: Bench, num_visual: int, part: SelectionPart) -> None:
        super().__init__(bench, num_visual, part)
        self.part = part

    def __call__(self) -> list[int]:
        kept = self._kept()
        self.bench.prefill(kept)
        return [len(kept)] * self.bench.config.num_hidden_layers

    @torch.inference_mode()
    def peak_bytes(self) -> int:
        """Return the larger of both steps' peaks. They are measured separately because only selections use NumPy, whose
        peak is added to PyTorch's."""
        kept, device = self._kept(), self.bench.settings.device
        return max(peak_bytes(self._kept, device), peak_bytes(lambda: self.bench.prefill(kept), device))

    def _kept(self) -> Tensor:
        (entering,) = select(self.part, [self.visual], [1])
        return entering.tokens


class Compressing(Run):
    """A prefill with a method's part between the decoder's own layers."""

    def __init__(self, bench: Bench, num_visual: int, part: DecoderPart) -> None:
        super().__init__(bench, num_visual)
        self.decoder = CompressingDecoder(bench.plain, part)
        is_visual = torch.zeros(1, num_visual + bench.settings.text_tokens, dtype=torch.bool)
        is_visual[:, len(bench.before) : len(bench.before) + num_visual] = True
        self.is_visual = is_visual.to(bench.settings.device)

    def __call__(self) -> list[int]:
        cache = PromptCache(self.bench.config, Prompt(self.is_visual, (self.visual.key,)))
        self.bench.prefill(self.visual.tokens, self.decoder, cache)
        return list(cache.visual_tokens_per_layer(0))


def run_of(bench: Bench, num_visual: int, method: Method) -> Run:
    """Build the run of a method, depending on its place."""
    if method.selection is not None:
        return Selecting(bench, num_visual, method.selection)
    assert method.decoder is not None, "a measured method must act before or inside the decoder"
    return Compressing(bench, num_visual, method.decoder)
