"""RVTC's three rules: every decision of tests/golden/internvl_x/rvtc.json, and images of impossible shapes."""

import json
from pathlib import Path

import pytest
from PIL import Image

from vico_eval.families.internvl.prompting import InternVLPrompting, InternVLSettings
from vico_eval.families.internvl.tiling import tile_grid
from vico_eval.methods import registry
from vico_eval.methods.interface import ImageSize, TileLimits
from vico_eval.methods.rvtc_area import area_limit
from vico_eval.methods.rvtc_edge import edge_limit

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "internvl_x" / "rvtc.json").read_text())
RULES = ("ratio", "edge", "area")


def part_of(rule):
    return registry.build(f"rvtc_{rule}").resolution


def cut(rule, image, *, max_tiles, tile_size=448, min_tiles=1):
    """The image, as InternVL cuts it with the rule."""
    prompting = InternVLPrompting(InternVLSettings(tile_size=tile_size))
    return prompting.cut(image, TileLimits(min_tiles, max_tiles), part_of(rule))


@pytest.mark.parametrize("rule", RULES)
def test_every_decision_of_the_reference(rule):
    part = part_of(rule)
    assert len(GOLDEN["cases"]) == 600
    wrong = []
    for case in GOLDEN["cases"]:
        size = ImageSize(case["w"], case["h"], 448, TileLimits(1, case["max_num"]), num_tiles=None)
        limits = part.limits(size)
        columns, rows = tile_grid(case["w"], case["h"], min_tiles=limits.min_tiles, max_tiles=limits.max_tiles)
        tiles = columns * rows
        if [columns, rows, tiles, tiles + (tiles > 1)] != case[rule]:
            wrong.append(case)
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
    assert cut(rule, Image.new("RGB", size), max_tiles=6).pieces.shape == (tiles, 448, 448, 3)


def test_an_image_too_small_for_the_least_tiles_is_one_tile():
    # 100 x 30 px in tiles of 56: 2 x 1 cover it, 0.96 of one are full.
    image = Image.new("RGB", (100, 30))
    for rule, tiles in (("ratio", 4), ("edge", 1), ("area", 1)):
        assert len(cut(rule, image, min_tiles=3, max_tiles=6, tile_size=56).pieces) == tiles
    assert cut("edge", image, min_tiles=2, max_tiles=6, tile_size=56).grid == (2, 1, 3)


def test_it_combines_with_methods_of_other_places():
    method = registry.build("rvtc_edge+vico", {"absolute_threshold": 0.4})
    assert (method.resolution.place, method.connector.place, method.decoder) == ("resolution", "connector", None)
