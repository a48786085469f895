"""The engine: answers requests in batches across documents, by one method or several, and counts tokens.

Threads read requests and divide images into tiles ahead of the model. Several methods run in lockstep: a batch's images
are read, tiled and encoded once, then each method (`vico_eval.engine.row`) answers it with the same answers as when it
runs alone.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from itertools import islice, zip_longest
from typing import Any

import torch
from accelerate.utils.memory import clear_device_cache
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from vico_eval.engine.ahead import cannot_prepare, prepare_ahead
from vico_eval.engine.decode.backend import Backend
from vico_eval.engine.decode.pending import Pending, settled
from vico_eval.engine.preprocess import Prepared, Preprocessor, tiling_of
from vico_eval.engine.requests import DeferredRequest, GenerationSettings, Request
from vico_eval.engine.row import Answer, Routing, Row, look_of
from vico_eval.errors import DOCUMENT_FAILURES, CheckpointError, DocumentError
from vico_eval.families.family import FamilyModel
from vico_eval.logs import logger
from vico_eval.methods.interface import PixelPart, ResolutionPart
from vico_eval.methods.registry import Method

WINDOW = 4
"""Number of batches per window. Requests of a window are sorted by length to reduce padding, while the next window is
read."""

Cuts = list[Prepared | DocumentError]
"""A request under each tiling that the methods need."""

Entry = tuple[int, Prepared]
"""A prepared request with its number."""

Outcome = Answer | Pending | DocumentError
"""The outcome of a request; `Pending` if vLLM decodes."""


class Engine:
    """A loaded model that answers requests by one method or several."""

    def __init__(
        self,
        model: FamilyModel,
        tokenizer: PreTrainedTokenizerBase,
        preprocessor: Preprocessor,
        methods: Sequence[Method],
        *,
        batch_size: int = 1,
        show_progress: bool = True,
        backend: Backend | None = None,
    ) -> None:
        """
        Args:
            model: the model with the weights of all methods.
            tokenizer: the checkpoint's tokenizer.
            preprocessor: a preprocessor with the first method's resolution part.
            methods: one or more methods, one per row.
            batch_size: number of requests per batch.
            show_progress: show a progress bar on stderr.
            backend: replaces the model's own decoder; methods can't act in it then.
        """
        self.backend = backend
        if backend is not None:
            weakref.finalize(self, backend.close)
        self.model: Any = model
        self.tokenizer = tokenizer
        self.preprocessor = preprocessor
        self.batch_size = batch_size
        self.show_progress = show_progress
        sights = model.sights([look_of(method) for method in methods])
        self.rows = [
            Row(model, tokenizer, preprocessor, method, sight) for method, sight in zip(methods, sights, strict=True)
        ]
        self._tilings = _tilings(methods)
        if backend is None:
            model.use_decoder_part(methods[0].decoder)

    @property
    def method(self) -> Method:
        """The first method."""
        return self.rows[0].method

    def answer(self, requests: Sequence[Request | DeferredRequest]) -> list[Answer]:
        """Return the first method's answers in the order of `requests`.

        Raises:
            DocumentError: a document, which the message names, can't be read or answered.
        """
        answers: dict[int, Answer] = {}
        for number, outcome in self.outcomes(requests):
            if isinstance(outcome, DocumentError):
                raise outcome
            answers[number] = outcome
        return [answers[number] for number in range(len(requests))]

    @torch.inference_mode()
    def routing(self, request: Request | DeferredRequest) -> Routing:
        """Return which of a request's tiles the first method compresses when it answers, without generating.

        Raises:
            MediaError: an image or a video can't be read.
            DocumentError: the routing of the document, which the message names, failed.
        """
        prepared = self.preprocessor(request)
        try:
            routing = self.rows[0].routing(prepared)
        except DOCUMENT_FAILURES as error:
            raise DocumentError(f"{request.key} can't be routed: {type(error).__name__}: {error}") from error
        if routing is None:
            raise DocumentError(f"{request.key} can't be routed: this family of models has no tiles")
        return routing

    def outcomes(
        self, requests: Sequence[Request | DeferredRequest], known: Collection[int] = ()
    ) -> Iterator[tuple[int, Answer | DocumentError]]:
        """Yield the number and outcome of each request, for the first method alone; see `row_outcomes`."""
        others = [range(len(requests))] * (len(self.rows) - 1)
        for _, number, outcome in self.row_outcomes(requests, [known, *others]):
            yield number, outcome

    def row_outcomes(
        self,
        requests: Sequence[Request | DeferredRequest],
        known: Sequence[Collection[int]],
        given_up: Collection[int] = (),
    ) -> Iterator[tuple[int, int, Answer | DocumentError]]:
        """Yield row, request number and answer or error, as soon as each is available.

        Requests with the same generation settings share batches. If a batch fails for a row, it is halved for that row
        until the failing documents are alone. A document that fails alone twice yields an error, and the others
        continue.

        Args:
            requests: any number of requests; deferred ones are created, and images opened, shortly before they are
                needed.
            known: by row, numbers of requests that are already answered. They are skipped; the others stay in the
                batches that they would be in otherwise, so that they get the same answers.
            given_up: rows that stop answering; read before each batch, so it may grow meanwhile.
        """
        left_out = [frozenset(numbers) for numbers in known]
        progress = tqdm(
            total=len(requests) * len(left_out),
            initial=sum(map(len, left_out)),
            unit="doc" if len(left_out) == 1 else "answer",
            desc=self.method.name if len(left_out) == 1 else f"{len(left_out)} rows",
            disable=not self.show_progress,
        )
        with progress:
            for row, number, outcome in self._settled(requests, left_out, given_up):
                if number not in left_out[row]:
                    progress.update()
                    yield row, number, outcome

    def _settled(
        self,
        requests: Sequence[Request | DeferredRequest],
        known: Sequence[frozenset[int]],
        given_up: Collection[int],
    ) -> Iterator[tuple[int, int, Answer | DocumentError]]:
        groups = _by_generation(requests)
        if self.backend is not None:
            for settings in groups:
                self.backend.check(settings)
        outcomes = (
            outcome
            for settings, numbers in groups.items()
            for outcome in self._group_outcomes(requests, numbers, settings, known, given_up)
        )
        yield from settled(outcomes, self.backend, known)

    def _group_outcomes(
        self,
        requests: Sequence[Request | DeferredRequest],
        numbers: Sequence[int],
        settings: GenerationSettings,
        known: Sequence[frozenset[int]],
        given_up: Collection[int],
    ) -> Iterator[tuple[int, int, Outcome]]:
        """Yield the outcomes of the requests `numbers`, which share their generation settings."""
        # Sorting doesn't help batches of one, and a window would only keep tiles in memory.
        size = self.batch_size * (WINDOW if self.batch_size > 1 else 1)
        windows = [numbers[start : start + size] for start in range(0, len(numbers), size)]
        windows = [window for window in windows if not all(row.issuperset(window) for row in known)]
        wanted = [requests[number] for window in windows for number in window]
        prepared = prepare_ahead(self._prepare, wanted, ahead=size + 3)
        for window in windows:
            read = list(zip(window, islice(prepared, len(window)), strict=True))
            batches = []
            for place, rows in enumerate(self._tilings.values()):
                cut = [(number, cuts if isinstance(cuts, DocumentError) else cuts[place]) for number, cuts in read]
                for number, entry in cut:
                    if isinstance(entry, DocumentError):
                        yield from ((row, number, entry) for row in rows if row not in given_up)
                entries = [(number, entry) for number, entry in cut if isinstance(entry, Prepared)]
                batches.append((rows, self._batches(entries)))
            yield from self._lockstep(batches, settings, known, given_up)

    def _prepare(self, request: Request | DeferredRequest) -> Cuts:
        if len(self._tilings) == 1:
            return [self.preprocessor(request)]
        return [
            cannot_prepare(request.key, cut) if isinstance(cut, Exception) else cut
            for cut in self.preprocessor.each_cut(request, list(self._tilings))
        ]

    def _batches(self, entries: Sequence[Entry]) -> list[list[Entry]]:
        entries = _by_length(entries)
        return [entries[start : start + self.batch_size] for start in range(0, len(entries), self.batch_size)]

    def _lockstep(
        self,
        batches: Sequence[tuple[Sequence[int], Sequence[list[Entry]]]],
        settings: GenerationSettings,
        known: Sequence[frozenset[int]],
        given_up: Collection[int],
    ) -> Iterator[tuple[int, int, Outcome]]:
        """Yield the outcomes of a window, batch by batch, each by all rows of its tiling.

        Batches of different tilings alternate, because videos are tiled alike and their batches are often the same.
        """
        for step in zip_longest(*(of_tiling for _, of_tiling in batches), fillvalue=()):
            for (rows, _), batch in zip(batches, step, strict=True):
                asked = {number for number, _ in batch}
                waiting = [row for row in rows if not known[row].issuperset(asked)]
                for row in waiting:
                    if row not in given_up:
                        prepared = [entry for _, entry in batch]
                        outcomes = self._answer_by(self.rows[row], prepared, settings, len(waiting))
                        for (number, _), outcome in zip(batch, outcomes, strict=True):
                            yield row, number, outcome

    def _answer_by(
        self, row: Row, batch: Sequence[Prepared], settings: GenerationSettings, num_rows: int
    ) -> Iterator[Outcome]:
        """Return the outcome of each document of a batch, in order, with the row's decoder part applied."""
        if len(self.rows) > 1 and self.backend is None:
            try:
                self.model.use_decoder_part(row.method.decoder)
            except CheckpointError as error:
                yield from (DocumentError(f"document {entry.key} can't be answered: {error}") for entry in batch)
                return
        yield from self._answer_or_halve(row, batch, settings, num_rows)

    def _answer_or_halve(
        self, row: Row, batch: Sequence[Prepared], settings: GenerationSettings, num_rows: int
    ) -> Iterator[Outcome]:
        """Return the outcome of each document of a batch, in order. A single document is tried twice."""
        answer: Callable[..., Sequence[Outcome]] = row.answer if self.backend is None else row.send
        try:
            yield from answer(batch, settings, num_rows)
            return
        except DOCUMENT_FAILURES as error:
            reason = f"{type(error).__name__}: {error}"
        # The exception kept the failed batch's tensors alive; from here on they are free.
        if len(batch) > 1:
            half = len(batch) // 2
            of_row = "" if len(self.rows) == 1 else f" of {row.method.name}"
            logger.warning(f"a batch of {len(batch)}{of_row} failed ({reason}); its halves are run one after the other")
            for part in (batch[:half], batch[half:]):
                yield from self._answer_or_halve(row, part, settings, num_rows)
            return
        try:
            row.see.forget()
            clear_device_cache(garbage_collection=True)
            yield from answer(batch, settings, num_rows)
        except DOCUMENT_FAILURES as error:
            logger.opt(exception=error).debug(f"document {batch[0].key} failed")
            failure = DocumentError(
                f"document {batch[0].key} failed twice, both times alone: {type(error).__name__}: {error}"
            )
            failure.__cause__ = error
            yield failure


def _tilings(methods: Sequence[Method]) -> dict[ResolutionPart | PixelPart | None, list[int]]:
    """Group method indices by tiling; methods with equal resolution parts are in one group."""
    first: dict[str, ResolutionPart | PixelPart | None] = {}
    rows: dict[ResolutionPart | PixelPart | None, list[int]] = {}
    for number, method in enumerate(methods):
        part = first.setdefault(tiling_of(method.resolution), method.resolution)
        rows.setdefault(part, []).append(number)
    return rows


def _by_length(entries: Sequence[Entry]) -> list[Entry]:
    """Sort requests by length, which reduces padding. Requests about the same images stay together, because images are
    encoded once per batch."""
    shortest: dict[str | None, tuple[int, int]] = {}
    for place, (_, prepared) in enumerate(entries):
        length, first = shortest.get(prepared.media, (len(prepared.text_ids), place))
        shortest[prepared.media] = min(length, len(prepared.text_ids)), first
    return sorted(entries, key=lambda entry: (entry[1].num_pieces, *shortest[entry[1].media], len(entry[1].text_ids)))


def _by_generation(requests: Sequence[Request | DeferredRequest]) -> dict[GenerationSettings, list[int]]:
    """Group request numbers by generation settings. A repeated request is sampled anew each time."""
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
