"""A method on a loaded model: turns prepared requests into answers with token accounts.

A batch passes three steps: see (encode all images at once, route each request separately), select visual tokens, and
generate answers for a left-padded batch of prompts.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from vico_eval.engine.decode.backend import EmbeddedPrompt
from vico_eval.engine.decode.pending import Pending
from vico_eval.engine.generation import GeneratedTokens, Generator, PromptTokens, seed_of
from vico_eval.engine.memory import forget_peak, peak_bytes
from vico_eval.engine.preprocess import Prepared, Preprocessor
from vico_eval.engine.requests import GenerationSettings
from vico_eval.engine.selection import Entering, select
from vico_eval.families.family import FamilyModel, Look, Picture, Seen, Sight
from vico_eval.families.finite import refuse_not_finite
from vico_eval.methods.interface import QUESTION, VisualTokens
from vico_eval.methods.registry import Method
from vico_eval.runs.schema import AnswerSeconds, TokenAccount


@dataclass(frozen=True)
class Answer:
    """The answer to a request, and its cost."""

    key: str
    text: str
    account: TokenAccount

    seconds: AnswerSeconds | None = field(default=None, compare=False)
    """Times of the stages, which equality of answers ignores."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Routing:
    """The routing of a request's tiles before the decoder, which an answer's account summarises."""

    pictures: tuple[Picture, ...]
    """In the order of the prompt."""

    compressed: tuple[bool, ...]
    """[tiles]."""

    p_compress: tuple[float, ...] | None
    """[tiles], the router's scores, if the method uses it."""

    visual_tokens: tuple[int, ...]
    """[tiles], numbers of tokens that the connector makes."""

    visual_tokens_uncompressed: int


@dataclass
class _Ready:
    """A prepared request with the visual tokens that enter the decoder."""

    prepared: Prepared
    seen: Seen
    entering: Entering


def look_of(method: Method) -> Look:
    """Return the information about images that a method needs."""
    return Look(
        connector=method.connector,
        selection=method.selection,
        vit_tokens=method.decoder is not None and method.decoder.needs_vit_tokens,
    )


class Row:
    """A loaded model with one method, which makes one row of a table. Several rows may share the model."""

    def __init__(
        self,
        model: FamilyModel,
        tokenizer: PreTrainedTokenizerBase,
        preprocessor: Preprocessor,
        method: Method,
        sight: Sight,
    ) -> None:
        self.method = method
        self.see = sight
        self.generate = Generator(model, tokenizer, preprocessor.prompting.stop)
        self._model: Any = model
        self._tokenizer = tokenizer
        self._preprocessor = preprocessor

    @torch.inference_mode()
    def answer(self, batch: Sequence[Prepared], settings: GenerationSettings, num_rows: int = 1) -> list[Answer]:
        """Answer a batch, in order, with the method's decoder part applied.

        Args:
            batch: requests prepared with the method's resolution part.
            settings: the generation settings of all requests.
            num_rows: number of rows that answer the batch, including this one.
        """
        encoding = self.see.encode(batch)
        forget_peak()
        started = time.perf_counter()
        ready = self.ready(batch)
        prompts = [self.prompt(entry) for entry in ready]
        generated = self.generate(prompts, settings)
        answers = [
            self._finish(prompt.key, self._prompt_account(entry, prompt), settings, said)
            for entry, prompt, said in zip(ready, prompts, generated, strict=True)
        ]
        # The last tokens are on the CPU, so no device is still working.
        own = time.perf_counter() - started + self.see.saved_s
        peak = peak_bytes()
        return [
            replace(
                answer,
                seconds=AnswerSeconds(
                    reading=prepared.reading_s,
                    encoding=encoding / len(batch),
                    own=own / len(batch),
                    prefill=self.generate.prefill_s / len(batch),
                    decode=self.generate.decode_s / len(batch),
                    rows=num_rows,
                    peak_bytes=peak,
                ),
            )
            for answer, prepared in zip(answers, batch, strict=True)
        ]

    @torch.inference_mode()
    def send(self, batch: Sequence[Prepared], settings: GenerationSettings, num_rows: int = 1) -> list[Pending]:
        """Submit a batch to vLLM; see `answer`. The method has no decoder part."""
        encoding = self.see.encode(batch)
        started = time.perf_counter()
        ready = self.ready(batch)
        prompts = [self.prompt(entry) for entry in ready]
        embedded = [self._embedded(prompt, settings) for prompt in prompts]
        own = time.perf_counter() - started + self.see.saved_s
        return [
            Pending(
                prompt=embeddings,
                seconds=AnswerSeconds(
                    reading=entry.prepared.reading_s,
                    encoding=encoding / len(batch),
                    own=own / len(batch),
                    rows=num_rows,
                ),
                # Numbers only: an entry has tensors on the GPU, and hundreds of prompts may wait.
                finish=partial(self._finish_decoded, prompt.key, self._prompt_account(entry, prompt), settings),
            )
            for entry, prompt, embeddings in zip(ready, prompts, embedded, strict=True)
        ]

    def _embedded(self, prompt: PromptTokens, settings: GenerationSettings) -> EmbeddedPrompt:
        ids = torch.tensor(prompt.input_ids, device=self._model.decoder_device)
        embeddings = self._model.embed(ids, prompt.visual_tokens.to(ids.device))
        refuse_not_finite("embeddings", [] if bool(embeddings.isfinite().all()) else [prompt.key])
        return EmbeddedPrompt(
            key=prompt.key,
            embeddings=embeddings.cpu(),
            settings=settings,
            seed=seed_of(settings, prompt.key),
            stop_ids=self.generate.stop_ids,
        )

    def _finish_decoded(
        self, key: str, account: dict[str, Any], settings: GenerationSettings, tokens: list[int]
    ) -> Answer:
        layers = (account["visual_tokens"],) * self._model.facts.num_layers
        return self._finish(key, account, settings, GeneratedTokens(self.generate.up_to_stop(tokens), layers))

    def routing(self, prepared: Prepared) -> Routing | None:
        """Return the routing of a request's tiles; None if the family has no tiles."""
        (seen,) = self.see([prepared])
        tiles = seen.tiles
        if tiles is None:
            return None
        return Routing(
            pictures=prepared.pictures,
            compressed=tuple(tiles.compressed),
            p_compress=None if tiles.p_compress is None else tuple(tiles.p_compress),
            visual_tokens=tuple(tiles.counts),
            visual_tokens_uncompressed=seen.uncompressed,
        )

    def ready(self, batch: Sequence[Prepared]) -> list[_Ready]:
        """Return the requests with the visual tokens that enter the decoder."""
        seen = self.see(batch)
        return [_Ready(*each) for each in zip(batch, seen, self._select(batch, seen), strict=True)]

    def _select(self, batch: Sequence[Prepared], seen: Sequence[Seen]) -> list[Entering]:
        """Select the visual tokens of each request that enter the decoder."""
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
        ids = torch.tensor(self._preprocessor.word_ids(prepared), dtype=torch.long, device=self._model.decoder_device)
        return replace(visual, question_ids=ids, question_embeddings=self._model.embedding(ids))

    def prompt(self, entry: _Ready) -> PromptTokens:
        input_ids = self._preprocessor.prompt_ids(entry.prepared, entry.entering.per_image)
        self._check_length(len(input_ids), len(entry.entering.tokens))
        tiles, added, keep = entry.seen.tiles, entry.seen.added, entry.entering.keep
        return PromptTokens(
            key=entry.prepared.key,
            input_ids=input_ids,
            visual_tokens=entry.entering.tokens,
            counts=[] if tiles is None else tiles.counts,
            vit_tokens=entry.seen.vit_tokens,
            positions=self._positions(entry, input_ids),
            added=added if added is None or keep is None else added[:, keep.to(added.device)],
        )

    def _positions(self, entry: _Ready, input_ids: list[int]) -> torch.Tensor | None:
        """Return the position ids [axes, N] of a prompt's tokens, which are those of the whole prompt before selection.
        None if positions are consecutive."""
        if self._model.counts_positions:
            return None
        whole_ids = self._preprocessor.prompt_ids(entry.prepared, entry.seen.per_image)
        whole: torch.Tensor = self._model.positions(whole_ids, entry.prepared.pictures)
        keep = entry.entering.keep
        if keep is None:
            return whole
        was_visual, is_visual = (
            torch.tensor(ids) == self._preprocessor.image_token_id for ids in (whole_ids, input_ids)
        )
        positions = whole.new_empty(len(whole), len(input_ids))
        positions[:, ~is_visual] = whole[:, ~was_visual]
        positions[:, is_visual] = whole[:, was_visual][:, keep]
        return positions

    def _check_length(self, length: int, num_visual: int) -> None:
        if self.method.decoder is not None:
            length += self.method.decoder.num_joining(num_visual, self._model.facts)
        limit = self._model.language_model.config.max_position_embeddings
        # Beyond this limit a decoder generates noise. Dynamic NTK would extend it, but with a table that depends on the
        # longest prompt so far, so an answer would depend on other requests.
        if length > limit:
            raise ValueError(
                f"its prompt has {length} tokens and the decoder {limit} positions; lower max_tiles, "
                "total_max_tiles, max_pixels or num_frames"
            )

    def _prompt_account(self, entry: _Ready, prompt: PromptTokens) -> dict[str, Any]:
        """Return an account's fields about a prompt."""
        visual = len(entry.entering.tokens)
        return {
            "visual_tokens": visual,
            "visual_tokens_uncompressed": entry.seen.uncompressed,
            "text_tokens": len(prompt.input_ids) - visual,
            "media": entry.prepared.media,
            **_of_tiles(entry),
            **self._of_selection(entry),
        }

    def _finish(
        self, key: str, of_prompt: dict[str, Any], settings: GenerationSettings, generated: GeneratedTokens
    ) -> Answer:
        text = str(self._tokenizer.decode(generated.tokens, skip_special_tokens=True))
        for stop in settings.until:
            text = text.split(stop, 1)[0]
        account = TokenAccount(
            visual_tokens_per_layer=generated.visual_tokens_per_layer,
            generated_tokens=len(generated.tokens),
            finish=self.generate.finish(generated.tokens, settings.until),
            **of_prompt,
        )
        return Answer(key, text.strip(), account)

    def _of_selection(self, entry: _Ready) -> dict[str, Any]:
        """Return an account's fields about a selection; none if the method has none."""
        if self.method.selection is None:
            return {}
        return {
            "visual_tokens_before_selection": len(entry.seen.tokens),
            "merged_tokens": entry.entering.num_merged,
        }


def _of_tiles(entry: _Ready) -> dict[str, Any]:
    """Return an account's fields about tiles; none if the family has no tiles."""
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
