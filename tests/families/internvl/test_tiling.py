"""Tiles equal the released preprocessing's, byte for byte under the same Pillow."""

import hashlib
import json
from pathlib import Path

import numpy as np
import PIL
import pytest
import torch
from PIL import Image

from vico_eval.errors import ConfigError, MediaError
from vico_eval.families.internvl.tiling import normalise, tile_grid, tile_image

GOLDEN = Path(__file__).parents[2] / "golden/tiling"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())


@pytest.mark.parametrize("case", EXPECTED["cases"], ids=lambda case: f"{case['file']}-{case['max_tiles']}")
def test_golden_tiles(case):
    tiles = tile_image(Image.open(GOLDEN / case["file"]), max_tiles=case["max_tiles"]).tiles
    assert tiles.shape == (case["tiles"], 448, 448, 3)
    assert tiles.dtype == np.uint8
    cells = tiles.reshape(-1, 8, 56, 8, 56, 3).mean(axis=(2, 4)).reshape(len(tiles), -1)
    # A mean is over 3136 pixels: another Pillow's rounding moves it by hundredths, a wrong filter or crop by units.
    np.testing.assert_allclose(cells, np.array(case["mean8x8"]).reshape(len(tiles), -1), atol=0.5)
    if PIL.__version__ == EXPECTED["pillow"]:
        assert [hashlib.sha256(tile.tobytes()).hexdigest() for tile in tiles] == case["sha256"]


@pytest.mark.parametrize("case", EXPECTED["cases"], ids=lambda case: f"{case['file']}-{case['max_tiles']}")
def test_a_named_grid_is_cut_as_one_that_was_chosen(case):
    image = Image.open(GOLDEN / case["file"])
    chosen = tile_image(image, max_tiles=case["max_tiles"])
    named = tile_image(image, max_tiles=1, grid=(chosen.columns, chosen.rows))
    assert named.grid == chosen.grid
    np.testing.assert_array_equal(named.tiles, chosen.tiles)


@pytest.mark.parametrize(
    ("size", "max_tiles", "grid"),
    [
        # 2:1 fits 2x1, 4x2 and 6x3 equally. In tiles of 10 px: 4x2 wants more than half of 800 px, 6x3 of 1800.
        ((28, 14), 18, (2, 1)),  # 392
        ((30, 15), 18, (4, 2)),  # 450
        ((44, 22), 18, (6, 3)),  # 968
        ((44, 22), 12, (4, 2)),
        # 1.5 lies halfway between 1x1 and 2x1; above half of 2x1's 200 px the later, larger grid wins.
        ((9, 6), 2, (1, 1)),
        ((15, 10), 2, (2, 1)),
        ((1, 1000), 12, (1, 12)),
    ],
)
def test_equally_near_grids_are_chosen_by_area(size, max_tiles, grid):
    assert tile_grid(*size, min_tiles=1, max_tiles=max_tiles, tile_size=10) == grid


def test_min_tiles_bounds_the_grid():
    assert tile_grid(100, 100, min_tiles=3, max_tiles=6, tile_size=56) == (2, 2)


def test_an_image_of_whole_tiles_is_only_cut():
    pixels = np.random.default_rng(0).integers(0, 256, (112, 168, 3), dtype=np.uint8)
    cut = tile_image(Image.fromarray(pixels), max_tiles=12, tile_size=56)
    assert (cut.columns, cut.rows, len(cut.tiles)) == cut.grid == (3, 2, 3 * 2 + 1)
    np.testing.assert_array_equal(cut.tiles[4], pixels[56:112, 56:112])  # row 1, column 1
    without = tile_image(Image.fromarray(pixels), max_tiles=12, tile_size=56, use_thumbnail=False)
    assert without.grid == (3, 2, 6)
    np.testing.assert_array_equal(without.tiles, cut.tiles[:6])


def test_alpha_is_dropped_and_not_blended():
    image = Image.new("RGBA", (56, 56), (200, 10, 30, 0))
    assert tile_image(image, max_tiles=1, tile_size=56).tiles[0, 0, 0].tolist() == [200, 10, 30]


def test_no_pixels():
    with pytest.raises(MediaError, match="0 x 5 px"):
        tile_image(Image.new("RGB", (0, 5)), max_tiles=12)


@pytest.mark.parametrize(("min_tiles", "max_tiles"), [(1, 0), (0, 4), (5, 4)])
def test_bounds_that_leave_no_grid(min_tiles, max_tiles):
    with pytest.raises(ConfigError, match=f"min_tiles={min_tiles}, max_tiles={max_tiles}"):
        tile_grid(10, 10, min_tiles=min_tiles, max_tiles=max_tiles, tile_size=56)


def test_normalise_puts_channels_first():
    tiles = np.zeros((2, 4, 4, 3), dtype=np.uint8)
    tiles[1, 2, 3] = (255, 0, 51)
    pixels = normalise(tiles)
    assert pixels.shape == (2, 3, 4, 4)
    assert pixels.dtype == torch.float32
    # (1 - 0.485) / 0.229, (0 - 0.456) / 0.224, (0.2 - 0.406) / 0.225
    torch.testing.assert_close(pixels[1, :, 2, 3], torch.tensor([2.248908, -2.035714, -0.915556]))
    torch.testing.assert_close(normalise(torch.from_numpy(tiles)), pixels, rtol=0, atol=0)
    tiles.flags.writeable = False
    torch.testing.assert_close(normalise(tiles), pixels, rtol=0, atol=0)
