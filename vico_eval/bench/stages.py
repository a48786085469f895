"""The time of an engine run by stage: tiling, vision encoder, router, connectors, method, prefill and decode.

Torch hooks on the model's modules, and the engine's own stages (`vico_eval.stages`), record the start and end of each
stage on a monotonic meter: seconds, or operations counted so far. Each instant belongs to the stage that began last, so
a method's work inside the decoder is not counted as prefill as well, and the stages never sum to more than the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count, pairwise
from typing import Any

from torch import nn
from transformers import PreTrainedTokenizerBase

from vico_eval.engine.engine import Engine
from vico_eval.engine.preprocess import Prepared, Preprocessor
from vico_eval.engine.preprocess_settings import PreprocessSettings
from vico_eval.engine.requests import DeferredRequest, Request
from vico_eval.errors import ConfigError
from vico_eval.families.internvl.modeling import VicoInternVL
from vico_eval.families.internvl.prompting import InternVLPrompting, InternVLSettings
from vico_eval.methods.registry import Method
from vico_eval.runs.schema import TokenAccount
from vico_eval.stages import METHOD, observed_by

TILING, VISION, ROUTER, CONNECTORS = "tiling", "vision encoder", "router", "connectors"
PREFILL, DECODE = "prefill", "decode"
STAGES = (TILING, VISION, ROUTER, CONNECTORS, METHOD, PREFILL, DECODE)
"""The stages in the order of a request; the method acts before or after the connectors, or inside prefill."""


@dataclass
class Span:
    """The meter readings at the start and end of one pass through a stage."""

    stage: str
    start: float
    end: float


@dataclass(frozen=True)
class StageTimes:
    """The meter's results for one engine run."""

    whole: float
    stages: dict[str, float]
    """The amount of each stage that ran; their sum is at most `whole`."""

    first_token: float
    """The amount from the start to the first token's logits."""


class StageMeter:
    """Records the stages of a run."""

    def __init__(self) -> None:
        self._read: Callable[[], float] = lambda: 0.0
        self._spans: list[Span] = []

    def run(self, answer: Callable[[], Any], read: Callable[[], float]) -> StageTimes:
        """Run once and return the results.

        Args:
            answer: answers one batch.
            read: reads the meter, which must be monotonic.

        Raises:
            ConfigError: the batch was split, for example because it did not fit into memory.
        """
        self._read, self._spans = read, []
        start = read()
        answer()
        end = read()
        prefills = [span for span in self._spans if span.stage == PREFILL]
        if len(prefills) != 1:
            raise ConfigError(
                f"the batch was answered in {len(prefills)} parts instead of one, perhaps because it does not fit into "
                "memory. Lower the batch size."
            )
        return StageTimes(end - start, exclusive(self._spans), prefills[0].end - start)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Record the code inside as a stage; several threads may enter at the same time."""
        span = self._begin(name)
        try:
            yield
        finally:
            span.end = self._read()

    @contextmanager
    def watching(self, model: VicoInternVL) -> Iterator[None]:
        """Record the stages that are modules of the model while the context is open."""
        parts = {
            VISION: [model.vision_tower],
            ROUTER: [model.router, model.image_router],
            CONNECTORS: [model.connector_high, model.connector_low],
        }
        handles = [
            handle
            for stage, modules in parts.items()
            for module in modules
            if module is not None
            for handle in self._watch(module, stage)
        ]
        handles += self._watch_decoder(model.language_model)
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _begin(self, name: str) -> Span:
        now = self._read()
        span = Span(name, now, now)
        self._spans.append(span)
        return span

    def _watch(self, module: nn.Module, stage: str) -> list[Any]:
        begun: list[Span] = []

        def before(*_: Any) -> None:
            begun.append(self._begin(stage))

        def after(*_: Any) -> None:
            begun.pop().end = self._read()

        return [module.register_forward_pre_hook(before), module.register_forward_hook(after)]

    def _watch_decoder(self, decoder: nn.Module) -> list[Any]:
        """Record prefill, the first call of an answer, and decoding, from there to the end of the last call."""
        current: list[Span] = []

        def before(_: nn.Module, __: Any, arguments: dict[str, Any]) -> None:
            is_prefill = arguments.get("inputs_embeds") is not None
            if is_prefill or not current:
                current[:] = [self._begin(PREFILL)]
            elif current[0].stage == PREFILL:
                # Sampling and all other work between two calls also counts as decoding.
                current[:] = [Span(DECODE, current[0].end, current[0].end)]
                self._spans.append(current[0])

        def after(*_: Any) -> None:
            current[0].end = self._read()

        return [
            decoder.register_forward_pre_hook(before, with_kwargs=True),
            decoder.register_forward_hook(after),
        ]


def exclusive(spans: list[Span]) -> dict[str, float]:
    """Return each stage's exclusive amount; where spans overlap, the one recorded last counts.

    Args:
        spans: the spans in the order in which they were recorded.

    Returns:
        The amounts of the stages that have a span, in the order of `STAGES`.
    """
    edges = sorted({edge for span in spans for edge in (span.start, span.end)})
    found = {span.stage for span in spans}
    totals = {stage: 0.0 for stage in STAGES if stage in found}
    for left, right in pairwise(edges):
        covering = [span.stage for span in spans if span.start <= left and right <= span.end]
        if covering:
            totals[covering[-1]] += right - left
    return totals


class MeasuredEngine:
    """An engine that records its stages; several may share one model."""

    def __init__(
        self,
        model: VicoInternVL,
        tokenizer: PreTrainedTokenizerBase,
        settings: PreprocessSettings,
        method: Method,
        batch_size: int,
    ) -> None:
        self.meter = StageMeter()
        prompting = InternVLPrompting(InternVLSettings.of(model.config))
        preprocessor = _MeasuredPreprocessor(tokenizer, prompting, settings, method, self.meter)
        model.config.image_token_id = preprocessor.image_token_id
        self.engine = Engine(model, tokenizer, preprocessor, [method], batch_size=batch_size, show_progress=False)

    def answer(self, requests: list[Request], read: Callable[[], float]) -> tuple[StageTimes, list[TokenAccount]]:
        """Answer one batch and return the meter's results and the token accounts.

        Raises:
            ConfigError: the batch was split.
            DocumentError: a request can't be answered.
        """
        model = self.engine.model
        accounts: list[TokenAccount] = []

        def answer() -> None:
            accounts.extend(answer.account for answer in self.engine.answer(requests))

        model.use_decoder_part(self.engine.method.decoder)
        with self.meter.watching(model), observed_by(self.meter.stage):
            times = self.meter.run(answer, read)
        return times, accounts


class _MeasuredPreprocessor(Preprocessor):
    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        prompting: InternVLPrompting,
        settings: PreprocessSettings,
        method: Method,
        meter: StageMeter,
    ) -> None:
        super().__init__(tokenizer, prompting, settings, method.resolution)
        self._meter = meter
        self._numbers = count()

    def __call__(self, request: Request | DeferredRequest) -> Prepared:
        with self._meter.stage(TILING):
            prepared = super().__call__(request)
        # Give all tiles unique digests, because the engine encodes repeated tiles only once.
        number = next(self._numbers)
        places = count()
        pictures = tuple(
            replace(picture, digests=tuple(f"{number}-{next(places)}".encode() for _ in picture.pieces))
            for picture in prepared.pictures
        )
        return replace(prepared, media=f"{prepared.media}-{number}", pictures=pictures)
