"""A mixture of what a connector takes in becomes what the connector makes of it, whichever connector it is."""

import pytest
import torch

from vico_eval.families.internvl.connectors import pixel_shuffle
from vico_eval.families.internvl.mixed_inputs import MixedInputs
from vico_eval.families.internvl.modeling import VicoInternVL
from vico_eval.methods.interface import HIGH, LOW

CHOICE = torch.tensor([0, 1, 0])


@pytest.fixture(scope="module")
def model(untrained):
    return VicoInternVL.from_pretrained(untrained / "vico").float().eval()


@pytest.fixture
def vit_tokens(model):
    torch.manual_seed(0)
    return torch.randn(3, 1 + model.config.vit_grid**2, model.config.vision_config.hidden_size)


def places(counts, tile):
    first = sum(counts[:tile])
    return torch.arange(first, first + counts[tile])


@torch.inference_mode()
def test_each_token_alone_is_the_visual_token_itself(model, vit_tokens):
    tokens, counts = model.connect(vit_tokens, CHOICE, (HIGH, LOW))
    mix = MixedInputs(model, vit_tokens, CHOICE, (HIGH, LOW))
    for tile, count in enumerate(counts.tolist()):
        members = places(counts.tolist(), tile)
        torch.testing.assert_close(mix(members[None], torch.eye(count)[None])[0], tokens[members])
    # Two tiles of one length together, in another order than theirs.
    members = torch.stack([places(counts.tolist(), 2), places(counts.tolist(), 0)])
    made = mix(members, torch.eye(members.shape[1]).expand(2, -1, -1))
    torch.testing.assert_close(made, tokens[members])


@pytest.mark.parametrize(("tile", "name"), [(0, "connector_high"), (1, "connector_low")])
@torch.inference_mode()
def test_a_sum_goes_through_the_connector_that_the_tile_took(model, vit_tokens, tile, name):
    connector = getattr(model, name)
    squares = pixel_shuffle(vit_tokens[tile : tile + 1], connector.block, connector.version)[0]
    _, counts = model.connect(vit_tokens, CHOICE, (HIGH, LOW))
    mix = MixedInputs(model, vit_tokens, CHOICE, (HIGH, LOW))
    members = places(counts.tolist(), tile)[[0, 3]]
    made = mix(members[None], torch.tensor([[[1.0, 0.5]]]))
    torch.testing.assert_close(made[0, 0], connector.project(squares[0] + 0.5 * squares[3]))


@torch.inference_mode()
def test_without_routes_all_take_the_high_connector_and_nothing_of_nothing_is_nothing(model, vit_tokens):
    tokens, _ = model.connect(vit_tokens, torch.zeros(3, dtype=torch.long), ())
    mix = MixedInputs(model, vit_tokens, torch.zeros(3, dtype=torch.long), ())
    members = torch.arange(model.num_high_tokens)[None]
    torch.testing.assert_close(mix(members, torch.eye(members.shape[1])[None])[0], tokens[members[0]])
    assert mix(members, torch.zeros(1, 0, members.shape[1])).shape == (1, 0, tokens.shape[1])


@torch.inference_mode()
def test_tokens_of_two_tiles_are_not_mixed(model, vit_tokens):
    mix = MixedInputs(model, vit_tokens, CHOICE, (HIGH, LOW))
    with pytest.raises(RuntimeError, match="of several tiles"):
        mix(torch.tensor([[0, model.num_high_tokens]]), torch.ones(1, 1, 2))
