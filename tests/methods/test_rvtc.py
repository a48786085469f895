"""RVTC's three rules: every decision of tests/golden/internvl_x/rvtc.json, and images of impossible shapes."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from vico_eval.families.internvl.tiling import area_limit, edge_limit, tile_grid
from vico_eval.methods import registry, rvtc_ratio
from vico_eval.methods.parts import TilingSettings

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "internvl_x" / "rvtc.json").read_text())
RULES = ("ratio", "edge", "area")


def settings(*, max_tiles, tile_size=448, min_tiles=1):
    return TilingSettings(tile_size=tile_size, min_tiles=min_tiles, max_tiles=max_tiles, use_thumbnail=True)


@pytest.mark.parametrize("rule", RULES)
def test_every_decision_of_the_reference(rule, monkeypatch):
    def grid_only(image, *, use_thumbnail, **bounds):
        columns, rows = tile_grid(*image.size, **bounds)
        tiles = columns * rows
        return [columns, rows, tiles, tiles + (tiles > 1 and use_thumbnail)]

    monkeypatch.setattr(rvtc_ratio, "tile_image", grid_only)
    part = registry.build(f"rvtc_{rule}").tiling
    assert len(GOLDEN["cases"]) == 600
    wrong = [
        case
        for case in GOLDEN["cases"]
        if part.tile(SimpleNamespace(size=(case["w"], case["h"])), settings(max_tiles=case["max_num"])) != case[rule]
    ]
    assert wrong == []


def test_every_limit_of_the_reference():
    for case in GOLDEN["cases"]:
        size = case["w"], case["h"], case["max_num"], 448
        assert (edge_limit(*size), area_limit(*size)) == (case["edge_R"], case["area_R"])


@pytest.mark.parametrize(
    ("width", "height", "edge", "area"),
    [
        (448, 448, 1, 1),
        (449, 448, 2, 2),  # one pixel more needs another tile, by either rule
        (897, 449, 6, 3),  # 3 x 2 tiles cover it; 402,753 / 200,704 = 2.007 of them are full
        (1, 1, 1, 1),
        (1, 20000, 45, 1),  # 20,000 / 448 = 44.6; all its pixels fill a tenth of a tile
    ],
)
def test_limits_by_hand(width, height, edge, area):
    assert edge_limit(width, height, 100, 448) == edge
    assert area_limit(width, height, 100, 448) == area
    assert edge_limit(width, height, 2, 448) == min(edge, 2)


@pytest.mark.parametrize(
    ("rule", "size", "tiles"),
    [
        # The paper's example, max 6: a 4 x 1 grid and a thumbnail for 80 x 20 pixels.
        ("ratio", (80, 20), 5),
        ("edge", (80, 20), 1),
        ("area", (80, 20), 1),
        ("ratio", (1, 1), 1),
        ("edge", (1, 1), 1),
        ("area", (1, 1), 1),
        ("ratio", (1, 20000), 7),
        ("edge", (1, 20000), 7),
        ("area", (1, 20000), 1),
        ("edge", (20000, 1), 7),
    ],
)
def test_tiles_of_tiny_and_of_endless_images(rule, size, tiles):
    part = registry.build(f"rvtc_{rule}").tiling
    assert part.tile(Image.new("RGB", size), settings(max_tiles=6)).tiles.shape == (tiles, 448, 448, 3)


def test_an_image_too_small_for_the_least_tiles_is_one_tile():
    # 100 x 30 px in tiles of 56: 2 x 1 cover it, 0.96 of one are full.
    image = Image.new("RGB", (100, 30))
    for rule, tiles in (("ratio", 4), ("edge", 1), ("area", 1)):
        part = registry.build(f"rvtc_{rule}").tiling
        assert len(part.tile(image, settings(min_tiles=3, max_tiles=6, tile_size=56)).tiles) == tiles
    edge = registry.build("rvtc_edge").tiling
    assert edge.tile(image, settings(min_tiles=2, max_tiles=6, tile_size=56)).grid == (2, 1, 3)


def test_it_combines_with_methods_of_other_places():
    method = registry.build("rvtc_edge+vico", {"absolute_threshold": 0.4})
    assert (method.tiling.place, method.connector.place, method.decoder) == ("tiling", "connector", None)
