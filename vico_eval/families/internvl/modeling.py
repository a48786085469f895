"""InternVL with ViCO's low connector and router, composed of transformers' own vision encoder and decoder.

Shapes: tiles = tiles in the call (of any number of requests); S = tile side in px; h = w = vision tokens along a
tile's side; C = vision width; D = decoder width; M = visual tokens in the call; N = prompt tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.models.internvl import InternVLVisionModel

from vico_eval.families.decoder.cache import PreallocatedCache
from vico_eval.families.decoder.decoder import CompressingDecoder
from vico_eval.families.decoder.last_layer import last_token_only
from vico_eval.families.decoder.segments import Prompt, PromptCache
from vico_eval.families.decoder.token_selection import TokenSelector
from vico_eval.families.internvl.config import VicoInternVLConfig
from vico_eval.families.internvl.connectors import HighConnector, LowConnector
from vico_eval.families.internvl.lvtc import LVTCProjectors
from vico_eval.families.internvl.pvtc import PvtcConnector
from vico_eval.families.internvl.router import Router
from vico_eval.families.internvl.weight_names import DEAD_ROUTER_WEIGHTS, conversions


class VisualTokens(NamedTuple):
    """Visual tokens of several tiles, packed."""

    tokens: Tensor
    """[M, D], tile after tile."""

    counts: Tensor
    """[tiles], int64: how many of them each tile takes."""


class FlashParts(NamedTuple):
    """What a ViCO (Flash) checkpoint has beyond InternVL; None where it has not."""

    connector_low: LowConnector | None
    router: Router | None
    image_router: Router | None

    @classmethod
    def build(cls, config: VicoInternVLConfig) -> FlashParts:
        """The parts that `config` names, with new weights."""
        vision_width, decoder_width = config.vision_config.hidden_size, config.text_config.hidden_size
        low = LowConnector(vision_width, decoder_width, 2 * config.high_block, config.ps_version)
        return cls(
            connector_low=low if config.has_low_connector else None,
            router=Router(vision_width, config.router_num_heads) if config.has_router else None,
            image_router=Router(vision_width, config.router_num_heads) if config.has_image_router else None,
        )


def _high_connector(config: VicoInternVLConfig) -> HighConnector | PvtcConnector:
    """The connector that `config.connector` names, with new weights.

    Raises:
        CheckpointError: sizes that PVTC can't have.
    """
    widths = config.vision_config.hidden_size, config.text_config.hidden_size
    if config.connector == "pvtc":
        return PvtcConnector(*widths, config.vit_grid, config.high_block, config.ps_version)
    return HighConnector(*widths, config.high_block, config.ps_version)


def _lvtc_projectors(config: VicoInternVLConfig) -> LVTCProjectors | None:
    if config.lvtc_settings is None:
        return None
    return LVTCProjectors(
        config.lvtc_settings,
        lambda: _high_connector(config),
        config.vision_config.hidden_size,
        config.text_config.hidden_size,
        config.ps_version,
    )


def encode_tiles(vision_tower: InternVLVisionModel, pixel_values: Tensor) -> Tensor:
    """Vision tokens [tiles, 1 + h*w, C], class token first, of normalised tiles [tiles, 3, S, S]."""
    patch = vision_tower.embeddings.patch_embeddings.projection.weight
    output = vision_tower(pixel_values=pixel_values.to(device=patch.device, dtype=patch.dtype))
    return output.last_hidden_state  # type: ignore[no-any-return]


class VicoInternVL(PreTrainedModel):
    """InternVL whose tiles may take their full or a quarter of their visual tokens.

    A checkpoint without ViCO's parts has `connector_low`, `router` and `image_router` set to None, one without
    InternVL-X's LVTC has `lvtc` set to None. `router_vision` is the vision encoder that the routers read where it isn't
    the model's own: routers that another checkpoint gave (`donor.adopt`) are trained on the tokens of its encoder.
    """

    config_class = VicoInternVLConfig
    config: VicoInternVLConfig
    base_model_prefix = ""
    main_input_name = "pixel_values"
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flash_attn_2 = True
    supports_gradient_checkpointing = True
    # Each adds or concatenates what its own layers made; a device map that cut through one would part the summands.
    _no_split_modules = ["HighConnector", "PvtcConnector", "LowConnector", "Router"]  # noqa: RUF012
    _keys_to_ignore_on_load_unexpected = [DEAD_ROUTER_WEIGHTS]  # noqa: RUF012

    def __init__(self, config: VicoInternVLConfig) -> None:
        super().__init__(config)
        self.vision_tower = InternVLVisionModel._from_config(config.vision_config)
        self.connector_high = _high_connector(config)
        parts = FlashParts.build(config)
        self.connector_low = parts.connector_low
        self.router = parts.router
        self.image_router = parts.image_router
        self.router_vision: InternVLVisionModel | None = None
        self.lvtc = _lvtc_projectors(config)
        self.language_model = AutoModelForCausalLM.from_config(config.text_config, trust_remote_code=False)
        # transformers makes this of config.json and falls back on it in every `generate`: a penalty that stands there
        # would change answers behind the back of whoever asks.
        self.language_model.generation_config = GenerationConfig()
        self.post_init()  # type: ignore[no-untyped-call]

    @property
    def num_high_tokens(self) -> int:
        """Visual tokens of a tile at full length."""
        return self.config.num_high_tokens

    @property
    def num_low_tokens(self) -> int:
        """Visual tokens of a compressed tile."""
        return self.config.num_low_tokens

    def get_input_embeddings(self) -> nn.Embedding:
        """The decoder's token embedding."""
        return self.language_model.get_input_embeddings()  # type: ignore[no-any-return]

    @property
    def decoder_device(self) -> torch.device:
        """Where prompts are to be put; under a device map the model's parts lie on several."""
        return self.get_input_embeddings().weight.device

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the decoder's token embedding."""
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """The decoder's head."""
        return self.language_model.get_output_embeddings()  # type: ignore[no-any-return]

    def encode_tiles(self, pixel_values: Tensor) -> Tensor:
        """Vision tokens [tiles, 1 + h*w, C], class token first, of normalised tiles [tiles, 3, S, S]."""
        return encode_tiles(self.vision_tower, pixel_values)

    def visual_tokens(
        self, vit_tokens: Tensor, compressed: Tensor, shorten: Callable[[Tensor], Tensor] | None = None
    ) -> VisualTokens:
        """Every tile through the connector it is routed to, and only that one.

        Args:
            vit_tokens: [tiles, 1 + h*w, C].
            compressed: [tiles], bool: True takes the low connector.
            shorten: makes a compressed tile's tokens [tiles, num_low, D] of its full ones [tiles, num_high, D], instead
                of the low connector.

        Raises:
            RuntimeError: a tile is to be compressed and the checkpoint has no low connector.
        """
        compressed = compressed.to(vit_tokens.device)
        counts = torch.where(compressed, self.num_low_tokens, self.num_high_tokens)
        if not bool(compressed.any()):
            return VisualTokens(self.connector_high(vit_tokens).flatten(0, 1), counts)
        low = self._low_tokens(vit_tokens[compressed], shorten).flatten(0, 1)
        if bool(compressed.all()):
            return VisualTokens(low, counts)
        high = self.connector_high(vit_tokens[~compressed]).flatten(0, 1).to(low.device)
        is_low = compressed.repeat_interleave(counts).to(low.device)
        packed = low.new_empty(len(is_low), low.shape[-1])
        packed[is_low] = low
        packed[~is_low] = high
        return VisualTokens(packed, counts)

    def _low_tokens(self, vit_tokens: Tensor, shorten: Callable[[Tensor], Tensor] | None) -> Tensor:
        if shorten is not None:
            return shorten(self.connector_high(vit_tokens))
        if self.connector_low is None:
            raise RuntimeError("this checkpoint has no low connector; load a ViCO (Flash) checkpoint to compress tiles")
        # A connector borrowed from another checkpoint is in no device map, so nothing else moves its input.
        near = self.connector_low.norm.weight.device
        low: Tensor = self.connector_low(vit_tokens.to(near))
        return low

    def embed(self, input_ids: Tensor, visual_tokens: Tensor) -> Tensor:
        """Token embeddings with the visual tokens in the places of `<IMG_CONTEXT>`, in order.

        Args:
            input_ids: [..., N], padded or not.
            visual_tokens: [M, D]; M is the number of `<IMG_CONTEXT>` ids.

        Returns:
            [..., N, D].
        """
        if self.config.image_token_id is None:
            raise RuntimeError("config.image_token_id is not set; load the checkpoint with its tokenizer")
        embeddings: Tensor = self.get_input_embeddings()(input_ids)
        is_visual = (input_ids == self.config.image_token_id).unsqueeze(-1).to(embeddings.device)
        places = int(is_visual.sum())
        if places != len(visual_tokens):
            raise RuntimeError(f"the prompt has places for {places} visual tokens and got {len(visual_tokens)}")
        return embeddings.masked_scatter(is_visual, visual_tokens.to(embeddings))

    def use_decoder_part(self, part: TokenSelector | None) -> None:
        """Let a part change the tokens between the decoder's layers; None gives back transformers' own decoder.

        Raises:
            CheckpointError: the decoder has layers with sliding attention.
        """
        decoder = self.language_model.model
        base = decoder.base if isinstance(decoder, CompressingDecoder) else decoder
        self.language_model.model = base if part is None else CompressingDecoder(base, part.bind(self))

    def prompt_cache(
        self,
        input_ids: Tensor,
        keys: Sequence[str],
        vit_tokens: Tensor | None = None,
        counts: Tensor | None = None,
    ) -> PromptCache | None:
        """What `generate` needs as `past_key_values`, and knows afterwards what each layer worked on.

        Args:
            input_ids: [batch, N], left-padded.
            keys: document keys, [batch].
            vit_tokens: [tiles, 1 + h*w, C], prompt after prompt, for a part that needs them.
            counts: [tiles], int64: visual tokens of each of those tiles.

        Returns:
            None without a decoder part: `generate` then makes a cache itself.
        """
        if not isinstance(self.language_model.model, CompressingDecoder):
            return None
        return PromptCache(self.config.text_config, self.prompt(input_ids, keys, vit_tokens, counts))

    def prompt(
        self,
        input_ids: Tensor,
        keys: Sequence[str],
        vit_tokens: Tensor | None = None,
        counts: Tensor | None = None,
    ) -> Prompt:
        """What the decoder's part may know of prompts, for a forward pass without a cache; arguments as above."""
        is_visual: Tensor = input_ids == self.config.image_token_id  # type: ignore[assignment]
        if vit_tokens is None or counts is None:
            return Prompt(is_visual, tuple(keys))
        # A prompt's tiles end where its visual tokens do.
        ends = is_visual.sum(dim=1).cumsum(dim=0)
        tiles = torch.searchsorted(counts.cumsum(dim=0).to(ends), ends, right=True)
        num_tiles = tiles.diff(prepend=tiles.new_zeros(1)).tolist()
        return Prompt(is_visual, tuple(keys), vit_tokens, tuple(num_tiles))

    def forward(
        self,
        input_ids: Tensor,
        pixel_values: Tensor | None = None,
        compressed: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **decoder_arguments: Any,
    ) -> Any:
        """The decoder's output for prompts whose tiles are given.

        Args:
            input_ids: [batch, N], with as many `<IMG_CONTEXT>` ids as the tiles take.
            pixel_values: [tiles, 3, S, S] of all prompts, in order; None for text only.
            compressed: [tiles], bool; None keeps every tile at full length.
            attention_mask: [batch, N].
            **decoder_arguments: passed on to the language model (labels, logits_to_keep, ...).
        """
        visual = self._no_visual_tokens()
        vit_tokens = counts = None
        if pixel_values is not None and len(pixel_values):
            vit_tokens = self.encode_tiles(pixel_values)
            if compressed is None:
                compressed = torch.zeros(len(vit_tokens), dtype=torch.bool, device=vit_tokens.device)
            visual, counts = self.visual_tokens(vit_tokens, compressed)
        if isinstance(self.language_model.model, CompressingDecoder) and "past_key_values" not in decoder_arguments:
            prompt = self.prompt(input_ids, [""] * len(input_ids), vit_tokens, counts)
            decoder_arguments.setdefault("prompt", prompt)
        return self.language_model(
            inputs_embeds=self.embed(input_ids, visual), attention_mask=attention_mask, **decoder_arguments
        )

    @torch.inference_mode()
    def generate(self, input_ids: Tensor, visual_tokens: Tensor, attention_mask: Tensor, **generation: Any) -> Tensor:
        """New token ids [batch, generated] for left-padded prompts [batch, N] and their visual tokens [M, D]."""
        if generation.get("use_cache") is not False:
            generation.setdefault("past_key_values", PreallocatedCache(self.config.text_config))
        with last_token_only(self.language_model.model):
            return self.language_model.generate(  # type: ignore[no-any-return]
                inputs_embeds=self.embed(input_ids, visual_tokens), attention_mask=attention_mask, **generation
            )

    def save_pretrained(self, save_directory: str | PathLike[Any], **kwargs: Any) -> None:  # type: ignore[override]
        """Save in this package's own layout, whichever layout the weights were loaded from."""
        kwargs.setdefault("save_original_format", False)
        super().save_pretrained(save_directory, **kwargs)

    def _no_visual_tokens(self) -> Tensor:
        embedding = self.get_input_embeddings().weight
        return embedding.new_zeros(0, embedding.shape[1])


register_checkpoint_conversion_mapping(VicoInternVL.__name__, conversions(), overwrite=True)
