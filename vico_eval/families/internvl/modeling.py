"""InternVL with ViCO's low connector and router, composed of transformers' own vision encoder and decoder.

Shapes: tiles = tiles in the call (of any number of requests); S = tile side in px; h = w = vision tokens along a
tile's side; C = vision width; D = decoder width; M = visual tokens in the call; N = prompt tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.models.internvl import InternVLVisionModel

from vico_eval.families.family import FamilyModel, Look, Sight
from vico_eval.families.internvl.config import VicoInternVLConfig
from vico_eval.families.internvl.connectors import HighConnector, LowConnector
from vico_eval.families.internvl.facts import facts_of
from vico_eval.families.internvl.lvtc import LVTCProjectors
from vico_eval.families.internvl.pvtc import PvtcConnector
from vico_eval.families.internvl.router import Router
from vico_eval.families.internvl.shared_tiles import SharedTiles
from vico_eval.families.internvl.sight import InternVLSight
from vico_eval.families.internvl.tile_encoder import encode_tiles
from vico_eval.families.internvl.weight_names import DEAD_ROUTER_WEIGHTS, conversions
from vico_eval.methods.interface import HIGH, LOW, ModelFacts, Route
from vico_eval.stages import METHOD, stage


class PackedTokens(NamedTuple):
    """Visual tokens of several tiles, packed."""

    tokens: Tensor
    """[M, D], tile by tile."""

    counts: Tensor
    """[tiles], int64, on the CPU: number of tokens of each tile."""


class FlashParts(NamedTuple):
    """The parts of a ViCO (Flash) checkpoint besides InternVL's; None for missing ones."""

    connector_low: LowConnector | None
    router: Router | None
    image_router: Router | None

    @classmethod
    def build(cls, config: VicoInternVLConfig) -> FlashParts:
        """Create the parts that `config` names."""
        vision_width, decoder_width = config.vision_config.hidden_size, config.text_config.hidden_size
        low = LowConnector(vision_width, decoder_width, 2 * config.high_block, config.ps_version)
        return cls(
            connector_low=low if "low_connector" in config.parts else None,
            router=Router(vision_width, config.router_num_heads) if "router" in config.parts else None,
            image_router=Router(vision_width, config.router_num_heads) if "image_router" in config.parts else None,
        )


def _high_connector(config: VicoInternVLConfig) -> HighConnector | PvtcConnector:
    """Create the connector of uncompressed tiles: InternVL's, or PVTC if the checkpoint has it.

    Raises:
        CheckpointError: PVTC doesn't support the sizes.
    """
    widths = config.vision_config.hidden_size, config.text_config.hidden_size
    if "pvtc" in config.parts:
        return PvtcConnector(*widths, config.vit_grid, config.high_block, config.ps_version)
    return HighConnector(*widths, config.high_block, config.ps_version)


def _lvtc_projectors(config: VicoInternVLConfig) -> LVTCProjectors | None:
    settings = config.parts.get("lvtc")
    if settings is None:
        return None
    return LVTCProjectors(
        settings["num_low_resolution"],
        settings["high_block"],
        lambda: _high_connector(config),
        config.vision_config.hidden_size,
        config.text_config.hidden_size,
        config.ps_version,
    )


class VicoInternVL(FamilyModel, PreTrainedModel):
    """InternVL in which tiles have all or a quarter of their visual tokens.

    Without ViCO's parts, `connector_low`, `router` and `image_router` are None; without InternVL-X's LVTC, `lvtc` is
    None. `router_vision` is the routers' vision encoder if it isn't the model's own, because routers from another
    checkpoint (`donor.adopt`) are trained on that checkpoint's encoder.
    """

    config_class = VicoInternVLConfig
    config: VicoInternVLConfig
    base_model_prefix = ""
    main_input_name = "pixel_values"
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flash_attn_2 = True
    supports_gradient_checkpointing = True
    # Each adds or concatenates outputs of its own layers, which a device map must keep on one device.
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
        # transformers creates this from config.json and falls back to it in every `generate`; a penalty in it would
        # silently change answers.
        self.language_model.generation_config = GenerationConfig()
        self.post_init()  # type: ignore[no-untyped-call]

    @property
    def num_high_tokens(self) -> int:
        """Visual tokens of an uncompressed tile."""
        return self.config.num_high_tokens

    @property
    def num_low_tokens(self) -> int:
        """Visual tokens of a compressed tile."""
        return self.config.num_low_tokens

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the decoder's token embedding."""
        return self.language_model.get_input_embeddings()  # type: ignore[no-any-return]

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the decoder's token embedding."""
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """Return the decoder's head."""
        return self.language_model.get_output_embeddings()  # type: ignore[no-any-return]

    def encode_tiles(self, pixel_values: Tensor) -> Tensor:
        """Return vision tokens [tiles, 1 + h*w, C], class token first, of normalised tiles [tiles, 3, S, S]."""
        return encode_tiles(self.vision_tower, pixel_values)

    @property
    def facts(self) -> ModelFacts:
        """The model's facts for parts of methods."""
        return facts_of(self.config, str(self.config.name_or_path))

    @property
    def image_token_id(self) -> int:
        """The id of `<IMG_CONTEXT>`.

        Raises:
            RuntimeError: it isn't known.
        """
        if self.config.image_token_id is None:
            raise RuntimeError("config.image_token_id is not set; load the checkpoint with its tokenizer")
        return self.config.image_token_id

    @property
    def part_modules(self) -> dict[str, nn.Module]:
        """Parts besides encoder, connector and decoder, by the names of `facts.parts`."""
        parts = {"router": self.router, "image_router": self.image_router, "lvtc": self.lvtc}
        return {name: module for name, module in parts.items() if module is not None}

    def sights(self, looks: Sequence[Look]) -> list[Sight]:
        """Return the sights, which encode, route and connect tiles for each look and share a batch's computations."""
        shared = SharedTiles(self, looks)
        return [InternVLSight(self, look, shared) for look in looks]

    def p_compress(self, scorer: str, vit_tokens: Tensor) -> Tensor:
        """Return the scores [tiles] of a router, given by name, for vision tokens [tiles, 1 + h*w, C]."""
        router: Any = self.part_modules[scorer]
        scores: Tensor = router.p_compress(vit_tokens)
        return scores

    def visual_tokens(self, vit_tokens: Tensor, compressed: Tensor) -> PackedTokens:
        """Apply the high connector or, for compressed tiles, the low one; see `connect`."""
        return self.connect(vit_tokens, compressed.long(), (HIGH, LOW))

    def connect(self, vit_tokens: Tensor, choice: Tensor, routes: Sequence[Route]) -> PackedTokens:
        """Apply to each tile the connector of its route, and no other.

        Args:
            vit_tokens: [tiles, 1 + h*w, C].
            choice: [tiles], int64, index into `routes`. On the CPU, it needs no synchronisation.
            routes: empty for the high connector alone.

        Raises:
            RuntimeError: a tile needs the low connector, but the checkpoint has none.
        """
        choice = choice.cpu()
        taken = [(choice == number, route) for number, route in enumerate(routes or (HIGH,))]
        # Without tiles, the first route returns an empty tensor.
        taken = [(is_taken, route) for is_taken, route in taken if bool(is_taken.any())] or taken[:1]
        # Low before high, because ZeRO-3 needs all processes to call the same parts in the same order.
        taken.reverse()
        if len(taken) == 1:
            made = [self._through(taken[0][1], vit_tokens)]
        else:
            made = [self._through(route, vit_tokens[is_taken]) for is_taken, route in taken]
        counts = torch.zeros_like(choice)
        for (is_taken, _), tokens in zip(taken, made, strict=True):
            counts[is_taken] = tokens.shape[1]
        if len(made) == 1:
            return PackedTokens(made[0].flatten(0, 1), counts)
        packed = made[0].new_empty(int(counts.sum()), made[0].shape[-1])
        for (is_taken, _), tokens in zip(taken, made, strict=True):
            packed[is_taken.repeat_interleave(counts)] = tokens.flatten(0, 1).to(packed.device)
        return PackedTokens(packed, counts)

    def _through(self, route: Route, vit_tokens: Tensor) -> Tensor:
        """Return visual tokens [tiles, n, D] of tiles with the same route."""
        if route.connector == LOW.connector:
            if self.connector_low is None:
                raise RuntimeError(
                    "this checkpoint has no low connector; load a ViCO (Flash) checkpoint to compress tiles"
                )
            # A connector from another checkpoint is in no device map, so its input must be moved here.
            tokens: Tensor = self.connector_low(vit_tokens.to(self.connector_low.norm.weight.device))
        else:
            tokens = self.connector_high(vit_tokens)
        if route.then is None:
            return tokens
        with stage(METHOD):
            return route.then(tokens)

    def forward(
        self,
        input_ids: Tensor,
        pixel_values: Tensor | None = None,
        compressed: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **decoder_arguments: Any,
    ) -> Any:
        """Return the decoder's output for prompts and their tiles.

        Args:
            input_ids: [batch, N], with one `<IMG_CONTEXT>` id per visual token.
            pixel_values: [tiles, 3, S, S] of all prompts, in order; None for text only.
            compressed: [tiles], bool; None compresses no tile.
            attention_mask: [batch, N].
            **decoder_arguments: passed on to the language model (labels, logits_to_keep, ...).
        """
        visual = self.no_visual_tokens()
        vit_tokens = counts = None
        if pixel_values is not None and len(pixel_values):
            vit_tokens = self.encode_tiles(pixel_values)
            if compressed is None:
                compressed = torch.zeros(len(vit_tokens), dtype=torch.bool, device=vit_tokens.device)
            visual, counts = self.visual_tokens(vit_tokens, compressed)
        if self.decoder_part is not None and "past_key_values" not in decoder_arguments:
            prompt = self.prompt(input_ids, [""] * len(input_ids), vit_tokens, counts)
            decoder_arguments.setdefault("prompt", prompt)
        return self.language_model(
            inputs_embeds=self.embed(input_ids, visual), attention_mask=attention_mask, **decoder_arguments
        )

    def save_pretrained(self, save_directory: str | PathLike[Any], **kwargs: Any) -> None:  # type: ignore[override]
        """Save in this package's own layout, regardless of the layout of the loaded weights."""
        kwargs.setdefault("save_original_format", False)
        super().save_pretrained(save_directory, **kwargs)


register_checkpoint_conversion_mapping(VicoInternVL.__name__, conversions(), overwrite=True)
