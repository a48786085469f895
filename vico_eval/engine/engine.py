"""Requests in, answers with their token accounts out, in batches across documents.

A batch goes through four steps: read and tile (threads, ahead of the model), encode all its pictures at once,
route each request on its own, generate for a left-padded batch of prompts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import torch
from accelerate.utils.memory import clear_device_cache
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from vico_eval.engine.encoding import TileEncoder
from vico_eval.engine.generation import GeneratedTokens, Generator, PromptTokens, refuse_not_finite
from vico_eval.engine.preprocess import Prepared, Preprocessor, prepare_ahead
from vico_eval.engine.requests import DeferredRequest, GenerationSettings, Request
from vico_eval.errors import DocumentError
from vico_eval.families.internvl.modeling import VicoInternVL
from vico_eval.logs import logger
from vico_eval.methods.parts import RequestTiles
from vico_eval.methods.registry import Method
from vico_eval.runs.schema import TokenAccount

WINDOW = 4
"""Batches whose requests are sorted by length together, for less padding; the next window is read meanwhile."""

# What a model, a tokenizer or a decoder can raise for one bad document (out of memory is a RuntimeError).
FAILURES = (RuntimeError, ValueError, IndexError, KeyError, TypeError, AssertionError, ArithmeticError, OSError)


@dataclass(frozen=True)
class Answer:
    """What the model said to one request, and what it cost."""

    key: str
    text: str
    account: TokenAccount


@dataclass(frozen=True, eq=False, kw_only=True)
class Routing:
    """What became of one request's tiles before the decoder saw any; what an answer's account sums up."""

    tiles: np.ndarray
    """[tiles, S, S, 3], uint8, in the order of the prompt; an image's thumbnail last."""

    grids: tuple[tuple[int, int, int], ...]
    """Columns, rows and tiles of each image or frame; a tile more than columns x rows is the thumbnail."""

    compressed: tuple[bool, ...]
    """[tiles]."""

    p_compress: tuple[float, ...] | None
    """[tiles], the router's scores, where the method has it score tiles."""

    visual_tokens: tuple[int, ...]
    """[tiles], those that enter the decoder."""


@dataclass
class _Routed:
    """A prepared request whose tiles have become visual tokens."""

    prepared: Prepared
    visual_tokens: Tensor
    counts: list[int]
    compressed: list[bool]
    p_compress: list[float] | None
    vit_tokens: Tensor | None
    """[tiles, 1 + h*w, C], where the decoder's part needs them."""


class Engine:
    """A loaded model with one method, answering requests."""

    def __init__(
        self,
        model: VicoInternVL,
        tokenizer: PreTrainedTokenizerBase,
        preprocessor: Preprocessor,
        method: Method,
        *,
        batch_size: int = 1,
        show_progress: bool = True,
    ) -> None:
        model.use_decoder_part(method.decoder)
        self.model = model
        self.tokenizer = tokenizer
        self.preprocessor = preprocessor
        self.method = method
        self.batch_size = batch_size
        self.show_progress = show_progress
        self._encode = TileEncoder(model.vision_tower)
        self._encode_for_router = None if model.router_vision is None else TileEncoder(model.router_vision)
        self._generate = Generator(model, tokenizer, preprocessor.template.stop)

    def answer(self, requests: Sequence[Request | DeferredRequest]) -> list[Answer]:
        """Answers in the order of `requests`.

        Raises:
            DocumentError: a document that can't be read or answered; names it.
        """
        answers: dict[int, Answer] = {}
        for number, outcome in self.outcomes(requests):
            if isinstance(outcome, DocumentError):
                raise outcome
            answers[number] = outcome
        return [answers[number] for number in range(len(requests))]

    @torch.inference_mode()
    def routing(self, request: Request | DeferredRequest) -> Routing:
        """Which of a request's tiles are compressed, decided as for its answer; nothing is generated.

        Raises:
            MediaError: an image or a video can't be read.
            DocumentError: its tiles can't be decided on; names it.
        """
        try:
            (routed,) = self._route([self.preprocessor(request)])
        except FAILURES as error:
            raise DocumentError(f"{request.key} can't be routed: {type(error).__name__}: {error}") from error
        return Routing(
            tiles=routed.prepared.tiles,
            grids=routed.prepared.grids,
            compressed=tuple(routed.compressed),
            p_compress=None if routed.p_compress is None else tuple(routed.p_compress),
            visual_tokens=tuple(routed.counts),
        )

    def outcomes(
        self, requests: Sequence[Request | DeferredRequest], known: Collection[int] = ()
    ) -> Iterator[tuple[int, Answer | DocumentError]]:
        """The number of each request with its answer, or with the error that it ended in, as soon as it is there.

        Requests with the same generation settings share batches. A batch that fails is halved until its documents stand
        alone; one that fails alone, twice, is an error of its own and the others go on.

        Args:
            requests: any number; deferred ones are made, and images opened, shortly before they are needed.
            known: numbers of requests that have an answer already. Nothing comes for them, and all others are answered
                in the batches in which they are when nothing is known, so that they get the same answers.
        """
        known = frozenset(known)
        progress = tqdm(
            total=len(requests),
            initial=len(known),
            unit="doc",
            desc=self.method.name,
            disable=not self.show_progress,
        )
        with progress:
            for settings, numbers in _by_generation(requests).items():
                for number, outcome in self._group_outcomes(requests, numbers, settings, known):
                    if number not in known:
                        progress.update()
                        yield number, outcome

    def _group_outcomes(
        self,
        requests: Sequence[Request | DeferredRequest],
        numbers: Sequence[int],
        settings: GenerationSettings,
        known: frozenset[int],
    ) -> Iterator[tuple[int, Answer | DocumentError]]:
        """Outcomes of the requests `numbers`, which share their generation settings."""
        # Sorting makes no batch of one better, and a window would only hold tiles in memory.
        size = self.batch_size * (WINDOW if self.batch_size > 1 else 1)
        windows = [numbers[start : start + size] for start in range(0, len(numbers), size)]
        windows = [window for window in windows if not known.issuperset(window)]
        wanted = [requests[number] for window in windows for number in window]
        prepared = prepare_ahead(self.preprocessor, wanted, ahead=size + 3)
        for window in windows:
            entries = []
            for number, entry in zip(window, islice(prepared, len(window)), strict=True):
                if isinstance(entry, DocumentError):
                    yield number, entry
                else:
                    entries.append((number, entry))
            entries = _by_length(entries)
            for start in range(0, len(entries), self.batch_size):
                batch = entries[start : start + self.batch_size]
                if not known.issuperset(number for number, _ in batch):
                    outcomes = self._answer_or_halve([entry for _, entry in batch], settings)
                    yield from zip((number for number, _ in batch), outcomes, strict=True)

    def _answer_or_halve(
        self, batch: Sequence[Prepared], settings: GenerationSettings
    ) -> Iterator[Answer | DocumentError]:
        """An outcome for each document of a batch, in order; a single one is tried twice."""
        try:
            yield from self._answer_batch(batch, settings)
            return
        except FAILURES as error:
            reason = f"{type(error).__name__}: {error}"
        # The exception held the tensors of the failed batch; from here on they are free.
        if len(batch) > 1:
            half = len(batch) // 2
            logger.warning(f"a batch of {len(batch)} failed ({reason}); its halves are run one after the other")
            for part in (batch[:half], batch[half:]):
                yield from self._answer_or_halve(part, settings)
            return
        try:
            self._encode.forget()
            if self._encode_for_router is not None:
                self._encode_for_router.forget()
            clear_device_cache(garbage_collection=True)
            yield from self._answer_batch(batch, settings)
        except FAILURES as error:
            logger.opt(exception=error).debug(f"document {batch[0].key} failed")
            failure = DocumentError(
                f"document {batch[0].key} failed twice, both times alone: {type(error).__name__}: {error}"
            )
            failure.__cause__ = error
            yield failure

    @torch.inference_mode()
    def _answer_batch(self, batch: Sequence[Prepared], settings: GenerationSettings) -> list[Answer]:
        routed = self._route(batch)
        prompts = [self._prompt(entry) for entry in routed]
        generated = self._generate(prompts, settings)
        return [self._finish(*entry, settings) for entry in zip(routed, prompts, generated, strict=True)]

    def _prompt(self, routed: _Routed) -> PromptTokens:
        input_ids = self.preprocessor.prompt_ids(routed.prepared, routed.counts)
        self._check_length(len(input_ids), len(routed.counts))
        return PromptTokens(
            key=routed.prepared.key,
            input_ids=input_ids,
            visual_tokens=routed.visual_tokens,
            counts=routed.counts,
            vit_tokens=routed.vit_tokens,
        )

    def _check_length(self, length: int, num_tiles: int) -> None:
        if self.method.decoder is not None:
            length += self.method.decoder.num_joining(num_tiles, self.model.config)
        limit = self.model.config.text_config.max_position_embeddings
        # Beyond it a decoder answers with noise. One with dynamic NTK would go on to a multiple of it, but with a table
        # that the longest prompt of the batch sets, and the longest so far: an answer would depend on its neighbours.
        if length > limit:
            raise ValueError(
                f"its prompt has {length} tokens and the decoder {limit} positions; lower max_tiles, "
                "total_max_tiles or num_frames"
            )

    def _route(self, batch: Sequence[Prepared]) -> list[_Routed]:
        """Encode all tiles of the batch together, then decide request by request."""
        sizes = [len(prepared.tiles) for prepared in batch]
        connector = self.method.connector
        vit_tokens = self._encode(batch)
        scores = None
        if connector is not None and len(vit_tokens):
            read = vit_tokens if self._encode_for_router is None else self._encode_for_router(batch)
            scores = connector.score(self.model, read)
        score_of: list[Tensor | None] = [None] * len(batch)
        if scores is not None:
            is_finite = [bool(part.all()) for part in torch.split(scores.isfinite().cpu(), sizes)]
            refuse_not_finite(
                "router's scores", (one.key for one, fine in zip(batch, is_finite, strict=True) if not fine)
            )
            score_of = [part if len(part) else None for part in torch.split(scores, sizes)]
        decisions = []
        for prepared, p_compress in zip(batch, score_of, strict=True):
            tiles = RequestTiles(
                prepared.key, torch.from_numpy(prepared.tile_image), p_compress, prepared.media, prepared.grids
            )
            if connector is None or not tiles.num_tiles:
                decisions.append(torch.zeros(tiles.num_tiles, dtype=torch.bool))
            else:
                decisions.append(connector.route(tiles, self.model.config).cpu())
        compressed = torch.cat(decisions)
        tokens, counts = self._connect(vit_tokens, compressed)
        needs_vit_tokens = self.method.decoder is not None and self.method.decoder.needs_vit_tokens
        per_request = [int(part.sum()) for part in torch.split(counts, sizes)]
        return [
            _Routed(
                prepared=prepared,
                visual_tokens=visual,
                counts=part.tolist(),
                compressed=decision.tolist(),
                p_compress=None if p_compress is None else p_compress.float().tolist(),
                vit_tokens=vit if needs_vit_tokens else None,
            )
            for prepared, visual, part, decision, p_compress, vit in zip(
                batch,
                torch.split(tokens, per_request),
                torch.split(counts, sizes),
                decisions,
                score_of,
                torch.split(vit_tokens, sizes),
                strict=True,
            )
        ]

    def _connect(self, vit_tokens: Tensor, compressed: Tensor) -> tuple[Tensor, Tensor]:
        if not len(vit_tokens):
            width = self.model.config.text_config.hidden_size
            return torch.zeros(0, width), torch.zeros(0, dtype=torch.long)
        shorten = None if self.method.connector is None else self.method.connector.shorten
        tokens, counts = self.model.visual_tokens(vit_tokens, compressed, shorten)
        return tokens, counts.cpu()

    def _finish(
        self, entry: _Routed, prompt: PromptTokens, generated: GeneratedTokens, settings: GenerationSettings
    ) -> Answer:
        text = str(self.tokenizer.decode(generated.tokens, skip_special_tokens=True))
        for stop in settings.until:
            text = text.split(stop, 1)[0]
        visual = sum(entry.counts)
        tiles = len(entry.counts)
        account = TokenAccount(
            tiles=tiles,
            compressed_tiles=sum(entry.compressed),
            visual_tokens=visual,
            visual_tokens_uncompressed=tiles * self.model.num_high_tokens,
            visual_tokens_per_layer=generated.visual_tokens_per_layer,
            text_tokens=len(prompt.input_ids) - visual,
            generated_tokens=len(generated.tokens),
            p_compress=None if entry.p_compress is None else tuple(round(score, 6) for score in entry.p_compress),
            media=entry.prepared.media,
            grids=entry.prepared.grids,
            compressed=tuple(place for place, is_compressed in enumerate(entry.compressed) if is_compressed),
        )
        return Answer(entry.prepared.key, text.strip(), account)


def _by_length(entries: Sequence[tuple[int, Prepared]]) -> list[tuple[int, Prepared]]:
    """For less padding; those about the same pictures side by side, which are encoded once if they share a batch."""
    shortest: dict[str | None, tuple[int, int]] = {}
    for place, (_, prepared) in enumerate(entries):
        length, first = shortest.get(prepared.media, (len(prepared.text_ids), place))
        shortest[prepared.media] = min(length, len(prepared.text_ids)), first
    return sorted(entries, key=lambda entry: (len(entry[1].tiles), *shortest[entry[1].media], len(entry[1].text_ids)))


def _by_generation(requests: Sequence[Request | DeferredRequest]) -> dict[GenerationSettings, list[int]]:
    """Numbers of the requests by how they are answered. A request that is repeated is sampled anew each time."""
    groups: dict[GenerationSettings, list[int]] = {}
    draws: Counter[tuple[str, GenerationSettings]] = Counter()
    for number, request in enumerate(requests):
        settings = request.generation
        if settings.do_sample:
            draw = draws[request.key, settings]
            draws[request.key, settings] += 1
            settings = replace(settings, seed=(settings.seed or 0) + draw)
        groups.setdefault(settings, []).append(number)
    return groups
