"""InternVL as a family: the engine's interface to the modules of this folder."""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedTokenizerBase

from vico_eval.families.checkpoint import check_tokenizer_fits
from vico_eval.families.family import Family, Placement
from vico_eval.families.internvl.checkpoint import (
    Checkpoint,
    find_checkpoint,
    load_model,
    load_tokenizer,
)
from vico_eval.families.internvl.decoder_export import exported_decoder
from vico_eval.families.internvl.donor import adopt
from vico_eval.families.internvl.modeling import VicoInternVL
from vico_eval.families.internvl.prompting import InternVLPrompting, InternVLSettings
from vico_eval.families.internvl.without_decoder import load_without_decoder


class InternVL(Family):
    """InternVL 2 to 3.5, Flash and InternVL-X."""

    def find(self, pretrained: str, *, allow_pickle: bool) -> Checkpoint:
        """Find a checkpoint; see `find_checkpoint`."""
        return find_checkpoint(pretrained, allow_pickle=allow_pickle)

    def tokenizer(self, checkpoint: Checkpoint) -> PreTrainedTokenizerBase:
        """Load the tokenizer (see `load_tokenizer`) and check it against the embedding."""
        tokenizer = load_tokenizer(checkpoint)
        check_tokenizer_fits(tokenizer, checkpoint)
        return tokenizer

    def prompting(self, checkpoint: Checkpoint) -> InternVLPrompting:
        """Return the prompting by the checkpoint's configuration."""
        return InternVLPrompting(InternVLSettings.of(checkpoint.config))

    def load(
        self, checkpoint: Checkpoint, placement: Placement, image_token_id: int, *, with_decoder: bool = True
    ) -> VicoInternVL:
        """Load the model; see `load_model`."""
        checkpoint.config.image_token_id = image_token_id
        load = load_model if with_decoder else load_without_decoder
        return load(
            checkpoint,
            dtype=placement.dtype,
            device=placement.device,
            device_map=placement.device_map,
            attn_implementation=placement.attn_implementation,
        )

    def decoder_folder(self, checkpoint: Checkpoint) -> Path:
        """Return the exported decoder in the user's cache; see `exported_decoder`."""
        return exported_decoder(checkpoint)

    def adopt(self, model: VicoInternVL, donor: Checkpoint, *, routes: bool) -> None:
        """Add ViCO's parts to a base model."""
        adopt(model, donor, routes=routes)
