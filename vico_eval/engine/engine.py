"""Requests in, answers with their token accounts out, in batches across documents.

A batch goes through four steps: read and cut (threads, ahead of the model), see (encode all its pictures at once, route
each request on its own), select visual tokens, and generate for a left-padded batch of prompts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import torch
from accelerate.utils.memory import clear_device_cache
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from vico_eval.engine.generation import GeneratedTokens, Generator, PromptTokens
from vico_eval.engine.preprocess import Prepared, Preprocessor, prepare_ahead
from vico_eval.engine.requests import DeferredRequest, GenerationSettings, Request
from vico_eval.engine.selection import Entering, select
from vico_eval.errors import DocumentError
from vico_eval.families.family import FamilyModel, Look, Picture, Seen
from vico_eval.logs import logger
from vico_eval.methods.interface import QUESTION, VisualTokens
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

    pictures: tuple[Picture, ...]
    """In the order of the prompt."""

    compressed: tuple[bool, ...]
    """[tiles]."""

    p_compress: tuple[float, ...] | None
    """[tiles], the router's scores, where the method has it score tiles."""

    visual_tokens: tuple[int, ...]
    """[tiles], those that the connector makes."""

    visual_tokens_uncompressed: int


@dataclass
class _Ready:
    """A prepared request with the visual tokens that enter the decoder."""

    prepared: Prepared
    seen: Seen
    entering: Entering


class Engine:
    """A loaded model with one method, answering requests."""

    def __init__(
        self,
        model: FamilyModel,
        tokenizer: PreTrainedTokenizerBase,
        preprocessor: Preprocessor,
        method: Method,
        *,
        batch_size: int = 1,
        show_progress: bool = True,
    ) -> None:
        model.use_decoder_part(method.decoder)
        self.model: Any = model
        self.tokenizer = tokenizer
        self.preprocessor = preprocessor
        self.method = method
        self.batch_size = batch_size
        self.show_progress = show_progress
        self._see = model.sight(
            Look(
                connector=method.connector,
                selection=method.selection,
                vit_tokens=method.decoder is not None and method.decoder.needs_vit_tokens,
            )
        )
        self._generate = Generator(model, tokenizer, preprocessor.prompting.stop)

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
        prepared = self.preprocessor(request)
        try:
            (seen,) = self._see([prepared])
        except FAILURES as error:
            raise DocumentError(f"{request.key} can't be routed: {type(error).__name__}: {error}") from error
        tiles = seen.tiles
        if tiles is None:
            raise DocumentError(f"{request.key} can't be routed: this family of models has no tiles")
        return Routing(
            pictures=prepared.pictures,
            compressed=tuple(tiles.compressed),
            p_compress=None if tiles.p_compress is None else tuple(tiles.p_compress),
            visual_tokens=tuple(tiles.counts),
            visual_tokens_uncompressed=seen.uncompressed,
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
            self._see.forget()
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
        ready = self._ready(batch)
        prompts = [self._prompt(entry) for entry in ready]
        generated = self._generate(prompts, settings)
        return [self._finish(*entry, settings) for entry in zip(ready, prompts, generated, strict=True)]

    def _ready(self, batch: Sequence[Prepared]) -> list[_Ready]:
        """The requests with the visual tokens that enter the decoder."""
        seen = self._see(batch)
        return [_Ready(*each) for each in zip(batch, seen, self._select(batch, seen), strict=True)]

    def _select(self, batch: Sequence[Prepared], seen: Sequence[Seen]) -> list[Entering]:
        """The visual tokens of each request that enter the decoder."""
        entering = [Entering(one.tokens, one.per_image) for one in seen]
        part = self.method.selection
        asked = [number for number, one in enumerate(seen) if one.visual is not None and len(one.tokens)]
        if part is None or not asked:
            return entering
        visual = [self._with_question(batch[number], seen[number].visual) for number in asked]
        num_images = [len(batch[number].pictures) for number in asked]
        for number, chosen in zip(asked, select(part, visual, num_images), strict=True):
            entering[number] = chosen
        return entering

    def _with_question(self, prepared: Prepared, visual: VisualTokens | None) -> VisualTokens:
        assert visual is not None, "a look with a selection describes what it sees"
        if self.method.selection is None or QUESTION not in self.method.selection.needs:
            return visual
        ids = torch.tensor(self.preprocessor.word_ids(prepared), dtype=torch.long, device=self.model.decoder_device)
        return replace(visual, question_ids=ids, question_embeddings=self.model.embedding(ids))

    def _prompt(self, entry: _Ready) -> PromptTokens:
        input_ids = self.preprocessor.prompt_ids(entry.prepared, entry.entering.per_image)
        self._check_length(len(input_ids), len(entry.entering.tokens))
        tiles = entry.seen.tiles
        return PromptTokens(
            key=entry.prepared.key,
            input_ids=input_ids,
            visual_tokens=entry.entering.tokens,
            counts=[] if tiles is None else tiles.counts,
            vit_tokens=entry.seen.vit_tokens,
        )

    def _check_length(self, length: int, num_visual: int) -> None:
        if self.method.decoder is not None:
            length += self.method.decoder.num_joining(num_visual, self.model.facts)
        limit = self.model.language_model.config.max_position_embeddings
        # Beyond it a decoder answers with noise. One with dynamic NTK would go on to a multiple of it, but with a table
        # that the longest prompt of the batch sets, and the longest so far: an answer would depend on its neighbours.
        if length > limit:
            raise ValueError(
                f"its prompt has {length} tokens and the decoder {limit} positions; lower max_tiles, "
                "total_max_tiles or num_frames"
            )

    def _finish(
        self, entry: _Ready, prompt: PromptTokens, generated: GeneratedTokens, settings: GenerationSettings
    ) -> Answer:
        text = str(self.tokenizer.decode(generated.tokens, skip_special_tokens=True))
        for stop in settings.until:
            text = text.split(stop, 1)[0]
        visual = len(entry.entering.tokens)
        account = TokenAccount(
            visual_tokens=visual,
            visual_tokens_uncompressed=entry.seen.uncompressed,
            visual_tokens_per_layer=generated.visual_tokens_per_layer,
            text_tokens=len(prompt.input_ids) - visual,
            generated_tokens=len(generated.tokens),
            media=entry.prepared.media,
            **_of_tiles(entry),
            **self._of_selection(entry),
        )
        return Answer(entry.prepared.key, text.strip(), account)

    def _of_selection(self, entry: _Ready) -> dict[str, Any]:
        """What an account says of a selection; nothing where the method has none."""
        if self.method.selection is None:
            return {}
        return {
            "visual_tokens_before_selection": len(entry.seen.tokens),
            "merged_tokens": entry.entering.num_merged,
        }


def _of_tiles(entry: _Ready) -> dict[str, Any]:
    """What an account says of tiles; nothing where a family has none."""
    tiles = entry.seen.tiles
    if tiles is None:
        return {}
    p_compress, compressed = tiles.p_compress, tiles.compressed
    return {
        "grids": entry.prepared.grids,
        "tiles": len(compressed),
        "compressed_tiles": sum(compressed),
        "p_compress": None if p_compress is None else tuple(round(score, 6) for score in p_compress),
        "compressed": tuple(place for place, is_compressed in enumerate(compressed) if is_compressed),
    }


def _by_length(entries: Sequence[tuple[int, Prepared]]) -> list[tuple[int, Prepared]]:
    """For less padding; those about the same pictures side by side, which are encoded once if they share a batch."""
    shortest: dict[str | None, tuple[int, int]] = {}
    for place, (_, prepared) in enumerate(entries):
        length, first = shortest.get(prepared.media, (len(prepared.text_ids), place))
        shortest[prepared.media] = min(length, len(prepared.text_ids)), first
    return sorted(entries, key=lambda entry: (entry[1].num_pieces, *shortest[entry[1].media], len(entry[1].text_ids)))


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
