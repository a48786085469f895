"""Generation of a batch's answers with transformers' loop, controlled by the request's settings alone.

Prompts are embeddings, as in InternVL's own `chat`, so transformers only knows the answer's tokens: a repetition
penalty counts those and never the prompt's. All logits processors are created here, because the ones that transformers
creates would take the prompts' padding for tokens of the answer. Generation settings in a checkpoint's files are not
applied; they are reported when the checkpoint is opened.

Shapes: requests = requests of the batch; rows = their beams, with a request's beams next to each other; V = vocabulary;
new = tokens generated so far.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedTokenizerBase,
    RepetitionPenaltyLogitsProcessor,
    StoppingCriteria,
    StoppingCriteriaList,
    StopStringCriteria,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from vico_eval.engine.requests import GenerationSettings
from vico_eval.errors import CheckpointError
from vico_eval.families.clock import seconds_on
from vico_eval.families.family import FamilyModel
from vico_eval.families.finite import refuse_not_finite
from vico_eval.runs.schema import Finish

WITHOUT_EFFECT: dict[str, Any] = {
    **dict.fromkeys(("repetition_penalty", "encoder_repetition_penalty", "length_penalty"), 1.0),
    **dict.fromkeys(("temperature", "top_p", "typical_p"), 1.0),
    **dict.fromkeys(("num_beams", "num_return_sequences"), 1),
    **dict.fromkeys(("no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "min_length", "min_new_tokens"), 0),
    **dict.fromkeys(("do_sample", "early_stopping"), False),
    **dict.fromkeys(("bad_words_ids", "sequence_bias", "suppress_tokens", "begin_suppress_tokens", "stop_strings")),
    **dict.fromkeys(("forced_bos_token_id", "forced_eos_token_id", "prompt_lookup_num_tokens", "guidance_scale")),
    **dict.fromkeys(("min_p", "max_time", "exponential_decay_length_penalty")),
    "top_k": 50,
}
"""Generation settings that a checkpoint's files may contain, with the values at which transformers does nothing."""


@dataclass(frozen=True, eq=False, kw_only=True)
class PromptTokens:
    """A prompt in the form that the decoder accepts."""

    key: str
    """The document's key."""

    input_ids: list[int]

    visual_tokens: Tensor
    """[M, D], inserted at the image tokens."""

    counts: list[int]
    """[tiles], number of visual tokens of each tile, if vision tokens are kept."""

    vit_tokens: Tensor | None = None
    """[tiles, 1 + h*w, C], if the decoder part needs them."""

    positions: Tensor | None = None
    """[axes, N], int64, on the CPU, if the family's positions aren't consecutive."""

    added: Tensor | None = None
    """[features, M, D], added to the visual tokens after the decoder's first layers."""


class GeneratedTokens(NamedTuple):
    """The tokens that the decoder generated and processed."""

    tokens: list[int]
    """New token ids, up to and including the end of text."""

    visual_tokens_per_layer: tuple[int, ...]
    """Number of visual tokens that each decoder layer processed in prefill."""


class Generator:
    """Generates the answers of a batch. A row's tokens don't depend on the other rows."""

    def __init__(self, model: FamilyModel, tokenizer: PreTrainedTokenizerBase, end_of_turn: str) -> None:
        """
        Args:
            end_of_turn: the prompt template's end-of-turn token, which ends an answer like the tokenizer's end-of-text
                token.
        """
        self._model = model
        self._tokenizer = tokenizer
        self._stop_criteria: dict[tuple[str, ...], StopStringCriteria] = {}
        self.stop_ids = _stop_ids(tokenizer, end_of_turn)
        """Each ends an answer."""

        self.prefill_s = self.decode_s = 0.0
        """Times of the last batch, up to its first token's logits and after them."""

        self._pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else self.stop_ids[0]

    def __call__(self, prompts: Sequence[PromptTokens], settings: GenerationSettings) -> list[GeneratedTokens]:
        """Generate an answer to each prompt.

        Raises:
            FloatingPointError: the logits of a prompt are NaN or infinite; the message names its document.
        """
        keys = [prompt.key for prompt in prompts]
        input_ids, attention_mask = self._padded([prompt.input_ids for prompt in prompts])
        device = self._model.decoder_device
        vit_tokens = [prompt.vit_tokens for prompt in prompts if prompt.vit_tokens is not None]
        added = [prompt.added.to(device) for prompt in prompts if prompt.added is not None]
        of_visual = torch.cat(added, dim=1) if added else None
        cache = self._model.prompt_cache(
            input_ids,
            keys,
            torch.cat(vit_tokens) if vit_tokens else None,
            torch.tensor([count for prompt in prompts for count in prompt.counts]),
            of_visual,
        )
        positions = self._padded_positions(prompts, input_ids.shape[1])
        finite = FiniteLogits(len(prompts))
        first = FirstLogits()
        started = seconds_on(device)
        rows = self._model.generate(
            input_ids.to(device),
            torch.cat([prompt.visual_tokens.to(device) for prompt in prompts]),
            attention_mask.to(device),
            positions=None if positions is None else positions.to(device),
            added=of_visual,
            generation_config=self._config(settings),
            logits_processor=LogitsProcessorList([finite, first, *_processors(settings, keys)]),
            stopping_criteria=StoppingCriteriaList([StopAtNotFinite(finite), *self._stop_strings(settings.until)]),
            **({} if cache is None else {"past_key_values": cache}),
        )
        self.prefill_s, self.decode_s = first.at_s - started, seconds_on(device) - first.at_s
        refuse_not_finite("logits", finite.failed_of(keys))
        num_layers = self._model.facts.num_layers
        return [
            GeneratedTokens(
                self.up_to_stop(tokens),
                (len(prompt.visual_tokens),) * num_layers if cache is None else cache.visual_tokens_per_layer(row),
            )
            for row, (prompt, tokens) in enumerate(zip(prompts, rows.tolist(), strict=True))
        ]

    def _padded(self, prompts: Sequence[list[int]]) -> tuple[Tensor, Tensor]:
        """Return token ids and attention mask [requests, N], padded on the left."""
        longest = max(map(len, prompts))
        input_ids = torch.full((len(prompts), longest), self._pad_id)
        attention_mask = torch.zeros_like(input_ids)
        for row, ids in enumerate(prompts):
            input_ids[row, longest - len(ids) :] = torch.tensor(ids)
            attention_mask[row, longest - len(ids) :] = 1
        return input_ids, attention_mask

    @staticmethod
    def _padded_positions(prompts: Sequence[PromptTokens], length: int) -> Tensor | None:
        """Return position ids [axes, requests, N], 0 at the padding; None if positions are consecutive."""
        known = [prompt.positions for prompt in prompts if prompt.positions is not None]
        if not known:
            return None
        padded = torch.zeros(len(known[0]), len(prompts), length, dtype=torch.long)
        for row, positions in enumerate(known):
            padded[:, row, length - positions.shape[1] :] = positions
        return padded

    def _config(self, settings: GenerationSettings) -> GenerationConfig:
        return GenerationConfig(
            max_new_tokens=settings.max_new_tokens,
            num_beams=settings.num_beams,
            do_sample=False,  # `DrawnToken` samples
            use_cache=True,
            eos_token_id=self.stop_ids,
            pad_token_id=self._pad_id,
        )

    def _stop_strings(self, until: tuple[str, ...]) -> list[StopStringCriteria]:
        # Scanning the vocabulary is slow, and all batches of a benchmark have the same stop strings.
        if until and until not in self._stop_criteria:
            self._stop_criteria[until] = StopStringCriteria(self._tokenizer, list(until))
        return [self._stop_criteria[until]] if until else []

    def up_to_stop(self, tokens: list[int]) -> list[int]:
        """Return the new tokens up to and including the one that ends the answer."""
        for position, token in enumerate(tokens):
            if token in self.stop_ids:
                return tokens[: position + 1]
        # Rows that ended at a stop string are padded to the longest.
        while tokens and tokens[-1] == self._pad_id:
            tokens = tokens[:-1]
        return tokens

    def finish(self, tokens: list[int], until: Sequence[str]) -> Finish:
        """Return why an answer ended, from its tokens (after `up_to_stop`) and stop strings, whichever engine generated
        it."""
        if tokens and tokens[-1] in self.stop_ids:
            return "stop"
        # With its special tokens, one of which may be a stop string.
        text = str(self._tokenizer.decode(tokens))
        return "stop" if any(stop in text for stop in until) else "length"


class FiniteLogits(LogitsProcessor):
    """Records the requests whose logits are NaN or infinite, without changing logits.

    It is the first processor and sees the model's own logits, because other processors set single tokens to minus
    infinity. Its record stays on the device: one reduction per token, without synchronisation.
    """

    def __init__(self, num_requests: int) -> None:
        self.failed: Tensor | None = None
        """[requests], bool, once there are logits."""

        self._num_requests = num_requests

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores [rows, V] unchanged."""
        # The maximum is NaN or plus infinity if any score is, and minus infinity if all are. Beam search passes
        # log-probabilities, which are NaN in all of these cases.
        failed = ~scores.amax(dim=-1).isfinite().view(self._num_requests, -1).all(dim=1)
        self.failed = failed if self.failed is None else self.failed | failed
        return scores

    def failed_of(self, keys: Sequence[str]) -> list[str]:
        """Return the keys of the recorded requests, given the keys of all [requests]."""
        assert self.failed is not None, "at least one token is generated"
        return [key for key, failed in zip(keys, self.failed.tolist(), strict=True) if failed]


class FirstLogits(LogitsProcessor):
    """Records the time of the first token's logits, without changing logits."""

    def __init__(self) -> None:
        self.at_s: float = math.nan

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores [rows, V] unchanged. Only the first call waits for the device."""
        if math.isnan(self.at_s):
            self.at_s = seconds_on(scores.device)
        return scores


class StopAtNotFinite(StoppingCriteria):
    """Ends the rows of a request whose logits were not finite, because further tokens would be meaningless."""

    def __init__(self, finite: FiniteLogits) -> None:
        self._finite = finite

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        """Return which rows of [rows, new] are done, [rows], bool. Beam search passes more rows than it has beams."""
        failed = self._finite.failed
        assert failed is not None, "processors see a token's logits first"
        return failed.repeat_interleave(len(input_ids) // len(failed)).to(input_ids.device)


class DrawnToken(LogitsProcessor):
    """Adds noise to the scores so that the largest one is a sample from their softmax, and a greedy choice samples.

    This is the Gumbel-max trick: with exponentially distributed `e`, the largest `score - log(e)` is at each token with
    that token's probability. Every row has its own generator, so its tokens don't depend on the other rows.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self._seeds = seeds
        self._generators: list[torch.Generator] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores [rows, V] with noise."""
        if not self._generators:
            self._generators = [torch.Generator(scores.device).manual_seed(seed) for seed in self._seeds]
        drawn = torch.empty_like(scores)
        for row, generator in zip(drawn, self._generators, strict=True):
            row.exponential_(generator=generator)
        # A draw of 0 would choose a token regardless of its score, and turn minus infinity into NaN.
        return scores - drawn.clamp_(min=torch.finfo(drawn.dtype).tiny).log_()


def _processors(settings: GenerationSettings, keys: Sequence[str]) -> list[LogitsProcessor]:
    """Return the logits processors in transformers' order; their parameters must be floats."""
    processors: list[LogitsProcessor] = []
    if settings.repetition_penalty != 1:
        processors.append(RepetitionPenaltyLogitsProcessor(float(settings.repetition_penalty)))
    if settings.do_sample:
        if settings.temperature != 1:
            processors.append(TemperatureLogitsWarper(float(settings.temperature)))
        if settings.top_k:
            processors.append(TopKLogitsWarper(settings.top_k))
        if settings.top_p < 1:
            processors.append(TopPLogitsWarper(float(settings.top_p)))
        processors.append(DrawnToken([seed_of(settings, key) for key in keys]))
    return processors


def seed_of(settings: GenerationSettings, key: str) -> int:
    """Return the seed of a document's sampling, which is the same in every run."""
    digest = sha256(f"{settings.seed or 0}/{key}".encode()).digest()
    return int.from_bytes(digest[:7], "big")


def _stop_ids(tokenizer: PreTrainedTokenizerBase, end_of_turn: str) -> list[int]:
    ids = {tokenizer.convert_tokens_to_ids(end_of_turn), tokenizer.eos_token_id}
    found = sorted(token for token in ids if token is not None and token != tokenizer.unk_token_id)
    if not found:
        raise ValueError("the tokenizer has neither an end-of-text token nor the template's end of turn")
    return found


def own_settings(folder: Path) -> dict[str, Any]:
    """Return the generation settings in a checkpoint's files that would change answers, by name. None of them is
    applied.

    Raises:
        CheckpointError: generation_config.json can't be read.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    said = config | (config.get("llm_config") or config.get("text_config") or {})
    file = folder / "generation_config.json"
    if file.is_file():
        try:
            said |= json.loads(file.read_text(encoding="utf-8"))
        except (ValueError, TypeError, RecursionError) as error:
            raise CheckpointError(f"{file} can't be read as JSON: {error}. Download it again, or remove it.") from error
    return {
        name: said[name] for name, idle in WITHOUT_EFFECT.items() if said.get(name) is not None and said[name] != idle
    }
