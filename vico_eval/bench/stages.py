"""Where a run of the engine spends its time: tiling, vision encoder, router, connectors, method, prefill, decode.

The engine knows nothing of it. Hooks of torch on the model's modules, and parts that hand on what they are asked, note
when a stage begins and ends on a meter that only goes up: seconds, or operations counted so far. An instant belongs to
the stage that began last, so what a method computes inside the decoder is not counted as prefill too, and the stages
never add up to more than the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count, pairwise
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from vico_eval.engine.engine import Engine
from vico_eval.engine.preprocess import Prepared, Preprocessor, PreprocessSettings
from vico_eval.engine.requests import DeferredRequest, Request
from vico_eval.errors import ConfigError
from vico_eval.families.decoder.token_selection import LayerState, NextTokens, RequestPrompt, TokenSelector
from vico_eval.families.internvl.config import VicoInternVLConfig
from vico_eval.families.internvl.modeling import VicoInternVL
from vico_eval.methods.parts import ConnectorPart, RequestTiles
from vico_eval.methods.registry import Method
from vico_eval.runs.schema import TokenAccount

TILING, VISION, ROUTER, CONNECTORS = "tiling", "vision encoder", "router", "connectors"
METHOD, PREFILL, DECODE = "method", "prefill", "decode"
STAGES = (TILING, VISION, ROUTER, CONNECTORS, METHOD, PREFILL, DECODE)
"""In the order in which a request meets them; the method acts between router and connectors, or inside prefill."""


@dataclass
class Span:
    """One stay in a stage, on the meter."""

    stage: str
    start: float
    end: float


@dataclass(frozen=True)
class StageTimes:
    """What one run of the engine read off its meter."""

    whole: float
    stages: dict[str, float]
    """By stage, those that ran, each once; together at most `whole`."""

    first_token: float
    """From the start to the first token's logits."""


class StageMeter:
    """Notes the stages of a run."""

    def __init__(self) -> None:
        self._read: Callable[[], float] = lambda: 0.0
        self._spans: list[Span] = []

    def run(self, answer: Callable[[], Any], read: Callable[[], float]) -> StageTimes:
        """Run once.

        Args:
            answer: has one batch answered.
            read: the meter; never goes down.

        Raises:
            ConfigError: the batch had to be answered in parts, as for want of memory.
        """
        self._read, self._spans = read, []
        start = read()
        answer()
        end = read()
        prefills = [span for span in self._spans if span.stage == PREFILL]
        if len(prefills) != 1:
            raise ConfigError(
                f"the batch was answered in {len(prefills)} parts, and one was to be measured: it may not fit into "
                "memory. Lower the batch size."
            )
        return StageTimes(end - start, exclusive(self._spans), prefills[0].end - start)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """What runs inside belongs to a stage; may be entered in several threads."""
        span = self._begin(name)
        try:
            yield
        finally:
            span.end = self._read()

    @contextmanager
    def watching(self, model: VicoInternVL) -> Iterator[None]:
        """Notes the stages that are modules of the model, as long as the context is open."""
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
        """The first call of an answer is the prefill; decoding lasts from there to the end of the last one."""
        current: list[Span] = []

        def before(_: nn.Module, __: Any, arguments: dict[str, Any]) -> None:
            is_prefill = arguments.get("inputs_embeds") is not None
            if is_prefill or not current:
                current[:] = [self._begin(PREFILL)]
            elif current[0].stage == PREFILL:
                # Choosing a token, and what else happens between two calls, is decoding as well.
                current[:] = [Span(DECODE, current[0].end, current[0].end)]
                self._spans.append(current[0])

        def after(*_: Any) -> None:
            current[0].end = self._read()

        return [
            decoder.register_forward_pre_hook(before, with_kwargs=True),
            decoder.register_forward_hook(after),
        ]


def exclusive(spans: list[Span]) -> dict[str, float]:
    """What each stage has to itself: where spans overlap, the one that was noted last counts.

    Args:
        spans: in the order in which they were noted.

    Returns:
        By stage, in the order of `STAGES`, those that have a span.
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
    """An engine whose stages are noted; several may share one model."""

    def __init__(
        self,
        model: VicoInternVL,
        tokenizer: PreTrainedTokenizerBase,
        settings: PreprocessSettings,
        method: Method,
        batch_size: int,
    ) -> None:
        self.meter = StageMeter()
        self._decoder_part = None if method.decoder is None else _MeasuredSelector(method.decoder, self.meter)
        if method.connector is not None:
            method = replace(method, connector=_MeasuredConnector(method.connector, self.meter))
        preprocessor = _MeasuredPreprocessor(tokenizer, settings, method, self.meter)
        model.config.image_token_id = preprocessor.image_token_id
        self.engine = Engine(model, tokenizer, preprocessor, method, batch_size=batch_size, show_progress=False)

    def answer(self, requests: list[Request], read: Callable[[], float]) -> tuple[StageTimes, list[TokenAccount]]:
        """What one batch read off the meter, and its token accounts.

        Raises:
            ConfigError: the batch had to be answered in parts.
            DocumentError: it can't be answered at all.
        """
        model = self.engine.model
        accounts: list[TokenAccount] = []

        def answer() -> None:
            accounts.extend(answer.account for answer in self.engine.answer(requests))

        model.use_decoder_part(self._decoder_part)
        with self.meter.watching(model):
            times = self.meter.run(answer, read)
        return times, accounts


class _MeasuredPreprocessor(Preprocessor):
    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, settings: PreprocessSettings, method: Method, meter: StageMeter
    ) -> None:
        super().__init__(tokenizer, settings, method.tiling)
        self._meter = meter
        self._numbers = count()

    def __call__(self, request: Request | DeferredRequest) -> Prepared:
        with self._meter.stage(TILING):
            prepared = super().__call__(request)
        # As if its tiles were others each time, and no two alike: the engine encodes one that comes again only once.
        number = next(self._numbers)
        digests = tuple(f"{number}-{place}".encode() for place in range(len(prepared.tiles)))
        return replace(prepared, media=f"{prepared.media}-{number}", tile_digests=digests)


class _MeasuredConnector(ConnectorPart):
    """Hands on to a connector part; its scores come from a module that is watched itself."""

    def __init__(self, part: ConnectorPart, meter: StageMeter) -> None:
        super().__init__(part.config)
        self._part, self._meter = part, meter
        if part.shorten is not None:
            self.shorten = self._shorten

    def score(self, model: VicoInternVL, vit_tokens: Tensor) -> Tensor | None:
        return self._part.score(model, vit_tokens)

    def route(self, tiles: RequestTiles, model_config: VicoInternVLConfig) -> Tensor:
        with self._meter.stage(METHOD):
            return self._part.route(tiles, model_config)

    def _shorten(self, high_tokens: Tensor) -> Tensor:
        assert self._part.shorten is not None
        with self._meter.stage(METHOD):
            return self._part.shorten(high_tokens)


class _MeasuredSelector:
    """Hands on to a part in the decoder."""

    def __init__(self, part: TokenSelector, meter: StageMeter) -> None:
        self._part, self._meter = part, meter

    @property
    def renumbers(self) -> bool:
        return self._part.renumbers

    def bind(self, model: Any) -> TokenSelector:
        return _MeasuredSelector(self._part.bind(model), self._meter)

    def layers(self, num_layers: int) -> AbstractSet[int]:
        return self._part.layers(num_layers)

    def prepare(self, request: RequestPrompt) -> Any:
        with self._meter.stage(METHOD):
            return self._part.prepare(request)

    def project(self, layer: int, vit_tokens: Tensor) -> Tensor | None:
        with self._meter.stage(METHOD):
            return self._part.project(layer, vit_tokens)

    def next_tokens(self, state: LayerState) -> NextTokens | None:
        with self._meter.stage(METHOD):
            return self._part.next_tokens(state)
