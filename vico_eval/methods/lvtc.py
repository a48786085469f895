"""LVTC: few visual tokens in the first layers, projections of the image added on the way, all in the last layers.

Place:   decoder. Before a few layers a further projection of a tile is added to its visual tokens; before one later
         layer the tile's tokens are upsampled, a high-resolution projection is added, and these go on in their place.
Source:  InternVL-X, section 3.2 and algorithm 1. Nothing of LVTC was released: this is our reading of the paper.
Differs: where the paper is silent, ours are: nearest or bilinear upsampling; how many projections and before which
         layers; consecutive positions over the tokens of each stage, with its own rotary table and causal mask; text
         that keeps its order around the image (the paper's pseudo-code puts the image first); and every tile, the
         thumbnail included, upsampled on its own. The settings are the checkpoint's (`lvtc` in its config.json).
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from torch import Tensor

from vico_eval.errors import CheckpointError
from vico_eval.families.decoder.token_selection import LayerState, NextTokens
from vico_eval.families.internvl.config import VicoInternVLConfig
from vico_eval.families.internvl.lvtc import LVTCProjectors, LVTCSettings, expanded_source, upsample
from vico_eval.families.internvl.modeling import VicoInternVL
from vico_eval.methods.parts import DecoderPart
from vico_eval.methods.registry import register


@dataclass(frozen=True, kw_only=True)
class LVTCConfig:
    """Nothing to set: weights are trained for one setting, which the checkpoint holds."""


@register("lvtc")
class LVTC(DecoderPart):
    """Adds and expands as a checkpoint's LVTC says; it acts only where it is bound to that checkpoint's model."""

    Config = LVTCConfig
    renumbers = True
    runs = frozenset({"lvtc"})
    needs_vit_tokens = True
    needs_whole_tiles = True

    def __init__(
        self,
        config: LVTCConfig,
        model_config: VicoInternVLConfig | None = None,
        projectors: LVTCProjectors | None = None,
    ) -> None:
        super().__init__(config)
        self._settings = None if model_config is None else model_config.lvtc_settings
        self._num_low = 0 if model_config is None else model_config.num_high_tokens
        self._projectors = projectors

    def check(self, model_config: VicoInternVLConfig, checkpoint: str) -> None:
        """Needs a checkpoint with LVTC's projectors."""
        if model_config.lvtc is None:
            raise CheckpointError(
                f"checkpoint {checkpoint!r} has no LVTC projectors (its config.json names no `lvtc`), and method "
                "'lvtc' needs them. Load a checkpoint that was trained with LVTC, or run `vanilla`."
            )

    def bind(self, model: VicoInternVL) -> LVTC:
        """The part with the model's projectors and settings."""
        self.check(model.config, str(model.config.name_or_path))
        return LVTC(self.config, model.config, model.lvtc)

    @property
    def settings(self) -> LVTCSettings:
        """Those of the model it is bound to."""
        assert self._settings is not None, "use_decoder_part() binds"
        return self._settings

    def layers(self, num_layers: int) -> AbstractSet[int]:
        """Those before which projections are added, and the one before which tiles expand."""
        return {*self.settings.insertions, self.settings.expand_before}

    def project(self, layer: int, vit_tokens: Tensor) -> Tensor:
        """The projection that joins before a layer, [tiles, n, D]."""
        assert self._projectors is not None
        projector = (
            self._projectors.high_resolution
            if layer == self.settings.expand_before
            else self._projectors.low_resolution[self.settings.insertions.index(layer)]
        )
        projected: Tensor = projector(vit_tokens)
        return projected

    def next_tokens(self, state: LayerState) -> NextTokens:
        """The visual tokens in their places, with a projection added; expanded first, before that one layer."""
        if state.projected is None:
            raise RuntimeError(f"method 'lvtc' got no vision tokens of {state.key}; expected them with the prompt")
        projected = state.projected.to(state.hidden)
        tokens = state.hidden[state.is_visual]
        tiles, num_high, _ = projected.shape
        if len(tokens) != tiles * self._num_low:
            raise RuntimeError(
                f"{state.key} has {len(tokens)} visual tokens for {tiles} tiles; expected every tile at full length, "
                f"{self._num_low} tokens"
            )
        source = expanded_source(state.is_visual, self._num_low, num_high)
        # An insertion makes no more tokens than there were, and upsampling then leaves them as they are.
        new = upsample(tokens.unflatten(0, (tiles, -1)), num_high, self.settings.upsample) + projected
        return NextTokens(source, new.flatten(0, 1))

    def num_joining(self, num_tiles: int, model_config: VicoInternVLConfig) -> int:
        """The tokens that an expansion adds."""
        settings = model_config.lvtc_settings
        assert settings is not None, "check() has seen them"
        return num_tiles * ((model_config.vit_grid // settings.high_block) ** 2 - model_config.num_high_tokens)
