"""Base weights get ViCO's low connector and routers, and the encoder that those routers were trained on."""

from dataclasses import replace

import pytest
import torch

from vico_eval.errors import CheckpointError
from vico_eval.families.internvl.checkpoint import find_checkpoint, load_model
from vico_eval.families.internvl.config import VicoInternVLConfig
from vico_eval.families.internvl.donor import adopt


@pytest.fixture
def plain(layouts, tmp_path):
    """A checkpoint without ViCO's parts and with other weights than the Flash one."""
    layouts.build_released(tmp_path / "plain", "qwen3", seed=5)
    return find_checkpoint(str(tmp_path / "plain"))


def adopted(checkpoint, donor, **options):
    model = load_model(checkpoint)
    adopt(model, donor, **options)
    return model


def equal_weights(one, other):
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(tensor, second[name]) for name, tensor in first.items())


@pytest.mark.parametrize("layout", ["released", "own"])
def test_all_parts_are_the_donors(flash, plain, layout, tmp_path):
    donor = find_checkpoint(str(flash.folder))
    given = load_model(donor)
    if layout == "own":
        given.save_pretrained(tmp_path / "own")
        donor = find_checkpoint(str(tmp_path / "own"))
    donor.config.parts["router"]["absolute_threshold"] = 0.25
    model = adopted(plain, donor)
    assert equal_weights(model.connector_low, given.connector_low)
    assert equal_weights(model.router, given.router)
    assert equal_weights(model.router_vision, given.vision_tower)
    assert not equal_weights(model.vision_tower, given.vision_tower)
    assert not equal_weights(model.connector_high, given.connector_high)
    assert model.config.parts.keys() >= {"low_connector", "router"}
    assert model.config.parts["router"]["absolute_threshold"] == 0.25
    assert not any(module.training for module in model.modules())


def test_an_encoder_with_the_same_weights_is_not_kept_twice(flash, altered):
    flash_checkpoint = find_checkpoint(str(flash.folder))
    assert adopted(flash_checkpoint, flash_checkpoint).router_vision is None
    # One number of one tensor in the last layer is enough to make it another encoder.
    name = "vision_model.encoder.layers.1.mlp.fc2.bias"
    changed = flash.tensors[name].clone()
    changed[-1] += 1
    assert adopted(find_checkpoint(altered({name: changed})), flash_checkpoint).router_vision is not None


def test_a_low_connector_alone_brings_no_router(flash, plain):
    model = adopted(plain, find_checkpoint(str(flash.folder)), routes=False)
    assert (model.router, model.image_router, model.router_vision) == (None, None, None)
    assert set(model.config.parts) == {"low_connector"}


def test_one_without_a_low_connector_is_refused(plain):
    with pytest.raises(CheckpointError, match=rf"'{plain.folder}' has no low connector to give"):
        adopted(plain, plain)


@pytest.mark.parametrize(
    "name", ["mlp2.4.weight", "gating.gate.1.bias", "vision_model.encoder.layers.0.attn.qkv.weight"]
)
def test_a_missing_weight_is_named(altered, plain, name):
    donor = find_checkpoint(altered({name: None}))
    with pytest.raises(CheckpointError, match=r"do not fit its config.json: missing: "):
        adopted(plain, donor)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"text_config": {"hidden_size": 64}}, "the decoder width of '.*' is 64, expected 32"),
        ({"vision_config": {"hidden_size": 64}}, "the vision width of '.*' is 64, expected 32"),
        ({"vision_config": {"image_size": [112, 112]}}, "the tile size of '.*' is 112, expected 56"),
        ({"vision_config": {"patch_size": [7, 7]}}, "vision tokens along a tile's side of '.*' is 8, expected 4"),
        ({"downsample_ratio": 1.0}, "visual tokens of a compressed tile of '.*' is 4, expected 1"),
    ],
)
def test_one_of_another_size_is_refused(flash, changed, message):
    ours = find_checkpoint(str(flash.folder))
    values = ours.config.to_dict()
    for name, value in changed.items():
        values[name] = values[name] | value if isinstance(value, dict) else value
    with pytest.raises(CheckpointError, match=message):
        adopted(ours, replace(ours, config=VicoInternVLConfig(**values)))
