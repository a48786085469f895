"""The decoding half of a family's model: prompts with visual tokens, a method's decoder part, and generation.

Shapes: batch = prompts, left-padded; N = prompt tokens; M = visual tokens of all prompts; tiles = those of all prompts;
D = decoder width; C = vision width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vico_eval.families.decoder.attention import LLAMA_LIKE, DecoderAttention
from vico_eval.families.decoder.cache import PreallocatedCache
from vico_eval.families.decoder.decoder import CompressingDecoder
from vico_eval.families.decoder.last_layer import last_token_only
from vico_eval.families.decoder.padded_prefill import bounded_masks
from vico_eval.families.decoder.segments import Prompt, PromptCache

if TYPE_CHECKING:
    from vico_eval.methods.interface import DecoderPart, ModelFacts


class PromptDecoder(ABC):
    """A mix-in for modules with a transformers causal language model as `language_model`."""

    language_model: Any

    decoder_attention: DecoderAttention = LLAMA_LIKE
    """The attention of its layers."""

    counts_positions: bool = True
    """Whether positions are consecutive over the tokens that enter the decoder; otherwise `positions` computes them."""

    ends_early: bool = True
    """Whether the last layer of a prefill only processes the last token. This saves a layer's time and changes the last
    bits of logits, like any other shape of a matrix product."""

    @property
    @abstractmethod
    def facts(self) -> ModelFacts:
        """The model's facts for parts of methods."""

    @property
    @abstractmethod
    def image_token_id(self) -> int:
        """The token that stands for one visual token in a prompt."""

    @property
    def part_modules(self) -> Mapping[str, nn.Module]:
        """The modules of the checkpoint's parts, by the names of `facts.parts`."""
        return {}

    @property
    def embedding(self) -> nn.Embedding:
        """The decoder's token embedding."""
        return self.language_model.get_input_embeddings()  # type: ignore[no-any-return]

    @property
    def decoder_device(self) -> torch.device:
        """The device of prompts; under a device map the model is on several devices."""
        return self.embedding.weight.device

    def embed(self, input_ids: Tensor, visual_tokens: Tensor) -> Tensor:
        """Return token embeddings with the visual tokens inserted at the image tokens, in order.

        Args:
            input_ids: [..., N], padded or not.
            visual_tokens: [M, D], one per image token.

        Returns:
            [..., N, D].
        """
        embeddings: Tensor = self.embedding(input_ids)
        is_visual = (input_ids == self.image_token_id).unsqueeze(-1).to(embeddings.device)
        places = int(is_visual.sum())
        if places != len(visual_tokens):
            raise RuntimeError(f"the prompt has {places} image tokens but got {len(visual_tokens)} visual tokens")
        return embeddings.masked_scatter(is_visual, visual_tokens.to(embeddings))

    def no_visual_tokens(self) -> Tensor:
        """Return [0, D]."""
        weight = self.embedding.weight
        return weight.new_zeros(0, weight.shape[1])

    @property
    def decoder_part(self) -> DecoderPart | None:
        """The part that changes the tokens between the decoder's layers, bound to this model."""
        decoder = self.language_model.model
        return decoder.part if isinstance(decoder, CompressingDecoder) else None

    def use_decoder_part(self, part: DecoderPart | None) -> None:
        """Let a part change the tokens between the decoder's layers; None restores transformers' own decoder.

        Raises:
            CheckpointError: the decoder has layers with sliding attention.
        """
        decoder = self.language_model.model
        base = decoder.base if isinstance(decoder, CompressingDecoder) else decoder
        if part is not None:
            base = CompressingDecoder(base, part.bind(self.facts, self.part_modules), self.decoder_attention)
        self.language_model.model = base

    def positions(self, input_ids: Sequence[int], pictures: Sequence[Any]) -> Tensor:
        """Return position ids of a whole prompt, before selection. Not called if `counts_positions`.

        Args:
            input_ids: [N], with all visual tokens of the images.
            pictures: the prompt's images, as divided by the family.

        Returns:
            [axes, N], int64, on the CPU. Tokens that enter the decoder keep theirs, and an answer continues after the
            last.
        """
        raise NotImplementedError("a family without consecutive positions must override `positions`")

    def decoder_arguments(self, input_ids: Tensor, positions: Tensor | None, added: Tensor | None) -> dict[str, Any]:
        """Return further arguments of the language model's `generate`; see `generate`."""
        return {}

    def prompt_cache(
        self,
        input_ids: Tensor,
        keys: Sequence[str],
        vit_tokens: Tensor | None = None,
        counts: Tensor | None = None,
        added: Tensor | None = None,
    ) -> PromptCache | None:
        """Make the cache for `generate`, which also records how many tokens each layer processed.

        Args:
            input_ids: [batch, N], left-padded.
            keys: document keys, [batch].
            vit_tokens: [tiles, 1 + h*w, C], prompt by prompt, for a part that needs them.
            counts: [tiles], int64: visual tokens of each of those tiles.
            added: [features, M, D]; see `Prompt.added`.

        Returns:
            None without a decoder part; `generate` then creates a cache itself.
        """
        if self.decoder_part is None:
            return None
        return PromptCache(self.language_model.config, self.prompt(input_ids, keys, vit_tokens, counts, added))

    def prompt(
        self,
        input_ids: Tensor,
        keys: Sequence[str],
        vit_tokens: Tensor | None = None,
        counts: Tensor | None = None,
        added: Tensor | None = None,
    ) -> Prompt:
        """Return the prompts' information for the decoder part, for a forward pass without a cache; see
        `prompt_cache`."""
        is_visual = input_ids == self.image_token_id
        if vit_tokens is None or counts is None:
            return Prompt(is_visual, tuple(keys), added=added)
        # A prompt's tiles end with its visual tokens.
        ends = is_visual.sum(dim=1).cumsum(dim=0)
        tiles = torch.searchsorted(counts.cumsum(dim=0).to(ends), ends, right=True)
        num_tiles = tiles.diff(prepend=tiles.new_zeros(1)).tolist()
        return Prompt(is_visual, tuple(keys), vit_tokens, tuple(num_tiles), added)

    @torch.inference_mode()
    def generate(
        self,
        input_ids: Tensor,
        visual_tokens: Tensor,
        attention_mask: Tensor,
        *,
        positions: Tensor | None = None,
        added: Tensor | None = None,
        **generation: Any,
    ) -> Tensor:
        """Generate token ids [batch, generated] for left-padded prompts [batch, N] and their visual tokens [M, D].

        Args:
            input_ids: the prompts.
            visual_tokens: the visual tokens of all prompts, in order.
            attention_mask: [batch, N].
            positions: [axes, batch, N], int64, if the family's positions aren't consecutive.
            added: [features, M, D]; see `Prompt.added`.
            **generation: passed on to transformers.
        """
        if generation.get("use_cache") is not False:
            generation.setdefault("past_key_values", PreallocatedCache(self.language_model.config))
        decoder = self.language_model.model
        shortened = last_token_only(decoder, self.decoder_attention) if self.ends_early else nullcontext()
        with shortened, bounded_masks(decoder.config):
            generated: Tensor = self.language_model.generate(
                inputs_embeds=self.embed(input_ids, visual_tokens),
                attention_mask=attention_mask,
                **self.decoder_arguments(input_ids, positions, added),
                **generation,
            )
        return generated
