"""ViCO's parts for a base model from a ViCO (Flash) checkpoint: low connector, routers, and the routers' encoder.

ViCO's first stage also trains the vision encoder, and its routers are trained on that encoder's tokens. With another
encoder's tokens their decisions differ.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.models.internvl import InternVLVisionModel

from vico_eval.errors import CheckpointError
from vico_eval.families.internvl.checkpoint import Checkpoint
from vico_eval.families.internvl.config import VicoInternVLConfig
from vico_eval.families.internvl.modeling import FlashParts, VicoInternVL
from vico_eval.families.internvl.weight_names import conversions
from vico_eval.families.weights import load_weights


class DonorParts(PreTrainedModel):
    """The parts that a ViCO checkpoint can supply to a base model.

    Args:
        config: the configuration of the whole checkpoint.
        routes: include routers and vision encoder; otherwise only the low connector.
    """

    config_class = VicoInternVLConfig
    config: VicoInternVLConfig
    base_model_prefix = ""
    main_input_name = "pixel_values"
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flash_attn_2 = True
    _keys_to_ignore_on_load_unexpected = [".*"]  # noqa: RUF012  # the rest of the checkpoint

    def __init__(self, config: VicoInternVLConfig, routes: bool = True) -> None:
        super().__init__(config)
        parts = FlashParts.build(config)
        self.connector_low = parts.connector_low
        self.router = parts.router if routes else None
        self.image_router = parts.image_router if routes else None
        self.vision_tower = InternVLVisionModel._from_config(config.vision_config) if routes else None
        self.post_init()  # type: ignore[no-untyped-call]


register_checkpoint_conversion_mapping(DonorParts.__name__, conversions(), overwrite=True)


def adopt(model: VicoInternVL, donor: Checkpoint, *, routes: bool = True) -> None:
    """Add the donor's low connector, its routers with their thresholds, and the routers' encoder to a loaded model.

    The encoder is only added if its weights differ from the model's own.

    Args:
        model: a base model; the parts are added in its dtype.
        donor: a ViCO (Flash) checkpoint of the same size.
        routes: route tiles by the donor; otherwise only its low connector is added.

    Raises:
        CheckpointError: the donor has another size, no low connector, or weights that don't match.
    """
    ours, theirs = model.config, donor.config
    if "low_connector" not in theirs.parts:
        raise CheckpointError(f"{donor.name!r} has no low connector to give; expected a ViCO (Flash) checkpoint.")
    _refuse_other_sizes(ours, donor)
    near = next(model.connector_high.parameters()).device
    parts: Any = load_weights(
        DonorParts,
        donor,
        dtype=model.dtype,
        # A connector that is offloaded to disk is on no device.
        device_map=None if near.type == "meta" else {"": near},
        attn_implementation=ours.vision_config._attn_implementation,
        routes=routes,
    )
    parts.eval()
    model.connector_low = parts.connector_low.to(near)
    ours.parts["low_connector"] = {}
    if not routes:
        return
    model.router, model.image_router = (
        None if router is None else router.to(near) for router in (parts.router, parts.image_router)
    )
    if not _has_equal_weights(model.vision_tower, parts.vision_tower):
        model.router_vision = parts.vision_tower.to(next(model.vision_tower.parameters()).device)
    for name in ("router", "image_router"):
        if name in theirs.parts:
            ours.parts[name] = dict(theirs.parts[name])


def _refuse_other_sizes(ours: VicoInternVLConfig, donor: Checkpoint) -> None:
    theirs = donor.config
    for what, here, there in (
        ("vision width", ours.vision_config.hidden_size, theirs.vision_config.hidden_size),
        ("tile size", ours.tile_size, theirs.tile_size),
        ("number of vision tokens along a tile's side", ours.vit_grid, theirs.vit_grid),
        ("number of visual tokens of a compressed tile", ours.num_low_tokens, theirs.num_low_tokens),
        ("decoder width", ours.text_config.hidden_size, theirs.text_config.hidden_size),
    ):
        if here != there:
            raise CheckpointError(
                f"the {what} of {donor.name!r} is {there}, expected {here}. Give the ViCO checkpoint of the same size."
            )


def _has_equal_weights(one: nn.Module, other: nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(
        weight.shape == second[name].shape and torch.equal(weight, second[name].to(weight))
        for name, weight in first.items()
    )
