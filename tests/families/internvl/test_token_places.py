"""Which vision tokens a visual token stands for, and where it lies: the released pixel shuffle on grids of numbers."""

import json
from pathlib import Path

import pytest
import torch

from vico_eval.families.internvl.connectors import pixel_shuffle
from vico_eval.families.internvl.token_places import grid_yx, of_squares, tokens_of

GROUPS = json.loads((Path(__file__).parents[2] / "golden" / "common" / "pixel_shuffle.json").read_text())


@pytest.mark.parametrize("name", GROUPS)
def test_a_visual_token_has_the_mean_of_the_vision_tokens_that_the_pixel_shuffle_stacks(name):
    groups = torch.tensor(GROUPS[name])
    numbers = torch.arange(int(groups.max()) + 1).float()
    # Two tiles, of which the second has other numbers.
    values = torch.stack([numbers, -(numbers**2)])
    found = of_squares(values, torch.tensor([len(groups)] * 2), swapped=False)
    expected = torch.cat([tile[groups].mean(dim=1) for tile in values])
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("block", [2, 4])
def test_values_come_in_the_order_of_the_connectors_tokens(version, block):
    vit_tokens = torch.randn(3, 1 + 64, 5)
    shuffled = pixel_shuffle(vit_tokens, block, version)  # [3, n, block * block * 5]
    expected = shuffled.unflatten(-1, (block * block, 5)).mean(dim=2).flatten(0, 1)
    counts = torch.full((3,), shuffled.shape[1])
    found = of_squares(vit_tokens[:, 1:], counts, swapped=version == "v1")
    torch.testing.assert_close(found, expected)


def test_tiles_of_different_lengths_stand_one_after_the_other():
    counts = torch.tensor([4, 1])
    assert tokens_of(counts).tolist() == [0, 0, 0, 0, 1]
    values = torch.stack([torch.arange(16.0), torch.full((16,), 7.0)])
    # A 4 x 4 grid of the numbers 0..15: the first square holds 0, 1, 4, 5, whose mean is 2.5.
    assert of_squares(values, counts, swapped=False).tolist() == [2.5, 4.5, 10.5, 12.5, 7.0]


def test_places_are_those_in_the_image():
    # 2 x 1 tiles of 2 x 2 tokens at full length and a thumbnail; then an image of one short tile.
    found = grid_yx([(2, 1, 3), (1, 1, 1)], torch.tensor([4, 1, 4, 1]), 2, swapped=False)
    assert found[:4].tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert found[4].tolist() == [0.5, 2.5]  # the middle of the right tile
    # Of the thumbnail, over 2 rows and 4 columns: 0.25 * 4 - 0.5 and 0.75 * 4 - 0.5.
    assert found[5:9].tolist() == [[0, 0.5], [0, 2.5], [1, 0.5], [1, 2.5]]
    assert found[9].tolist() == [0.5, 0.5]


def test_under_version_1_tokens_go_down_the_columns():
    assert grid_yx([(1, 1, 1)], torch.tensor([4]), 2, swapped=True).tolist() == [[0, 0], [1, 0], [0, 1], [1, 1]]
