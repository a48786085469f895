"""One prompt through a random decoder: plainly, through a method before it, or through one inside it.

Random weights of a real shape: time does not depend on what tokens say.
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
    """What is prefilled and on what."""

    size: str
    """Of the decoder, a name in `SIZES`."""

    visual_tokens: int
    """Whole tiles of 256, or one smaller tile."""

    text_tokens: int
    """Half of them stand before the image, as a system prompt does, and half behind it."""

    device: str
    dtype: str
    attention: str
    """Transformers' name of the kernel."""


class Bench:
    """A random decoder, and a prompt's text."""

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
        """Compute the last token's logits behind visual tokens [n, D] and the text."""
        self.model.model = self.plain if decoder is None else decoder
        embeddings = torch.cat([self.before, visual, self.behind])[None]
        self.model(inputs_embeds=embeddings, past_key_values=cache, use_cache=True, logits_to_keep=1)

    def wait(self) -> None:
        """Until the accelerator has done its work."""
        if self.model.device.type == "cuda":
            torch.cuda.synchronize()


class Run(ABC):
    """A prefill of so many visual tokens, again and again."""

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
        """Of each timed run: all of it, and what the method itself took."""

    @abstractmethod
    def __call__(self) -> list[int]:
        """Run once; visual tokens that each layer worked on."""

    @torch.inference_mode()
    def seconds(self) -> float:
        """Of one run, until the last token's logits are there."""
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
        """Memory at the run's peak, beyond weights and visual tokens."""
        return peak_bytes(self, self.bench.settings.device)


class Plain(Run):
    """Transformers' own decoder."""

    def __call__(self) -> list[int]:
        self.bench.prefill(self.visual.tokens)
        return [len(self.visual.tokens)] * self.bench.config.num_hidden_layers


class Selecting(Run):
    """A selection, and the plain prefill of what it lets in."""

    def __init__(self, bench: Bench, num_visual: int, part: SelectionPart) -> None:
        super().__init__(bench, num_visual, part)
        self.part = part

    def __call__(self) -> list[int]:
        kept = self._kept()
        self.bench.prefill(kept)
        return [len(kept)] * self.bench.config.num_hidden_layers

    @torch.inference_mode()
    def peak_bytes(self) -> int:
        """The larger one of both steps': NumPy's arrays, of selections alone, are counted by their own peak."""
        kept, device = self._kept(), self.bench.settings.device
        return max(peak_bytes(self._kept, device), peak_bytes(lambda: self.bench.prefill(kept), device))

    def _kept(self) -> Tensor:
        (entering,) = select(self.part, [self.visual], [1])
        return entering.tokens


class Compressing(Run):
    """The decoder's own layers with a method's part between them."""

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
    """A method's, by the place in which it acts."""
    if method.selection is not None:
        return Selecting(bench, num_visual, method.selection)
    assert method.decoder is not None, "methods that are measured act before or inside the decoder"
    return Compressing(bench, num_visual, method.decoder)
