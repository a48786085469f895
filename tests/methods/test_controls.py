"""The controls: pooling without training, fewer pixels."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from vico_eval.errors import CheckpointError, ConfigError
from vico_eval.internvl.config import VicoInternVLConfig
from vico_eval.methods import registry
from vico_eval.methods.parts import RequestTiles, TilingSettings

SETTINGS = TilingSettings(tile_size=56, min_tiles=1, max_tiles=12, use_thumbnail=True)


def test_pool_averages_neighbours_in_both_directions():
    # A 4 x 4 grid of the numbers 0..15: the first square holds 0, 1, 4, 5, whose mean is 2.5.
    tokens = torch.arange(16.0).reshape(1, 16, 1)
    pooled = registry.build("pool").connector.shorten(torch.cat([tokens, -tokens], dim=2))
    assert pooled[0, :, 0].tolist() == [2.5, 4.5, 10.5, 12.5]
    assert pooled[0, :, 1].tolist() == [-2.5, -4.5, -10.5, -12.5]


def test_pool_needs_no_parts_of_vico_but_an_even_grid():
    pool = registry.build("pool").connector
    pool.check(VicoInternVLConfig(), "base")
    with pytest.raises(CheckpointError, match="visual tokens a tile; method 'pool' needs a square grid of even side"):
        pool.check(VicoInternVLConfig(vision_config={"image_size": [84, 84], "patch_size": [14, 14]}), "odd")


def picture(columns, rows):
    return Image.fromarray(np.zeros((56 * rows, 56 * columns, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("columns", "rows", "tile_keep_ratio", "tiles"),
    [
        (4, 3, 1.0, 13),
        # 13 tiles at 0.5 are 6.5: a 3 x 2 grid and its thumbnail
        (4, 3, 0.5, 7),
        # 13 tiles at 0.05 are 0.65: one tile, without a thumbnail
        (4, 3, 0.05, 1),
        # 3 tiles at 0.4 are 1.2
        (2, 1, 0.4, 1),
        (1, 1, 0.5, 1),
    ],
)
def test_downsample_comes_as_near_to_the_budget_as_whole_tiles_can(columns, rows, tile_keep_ratio, tiles):
    part = registry.build("downsample", {"tile_keep_ratio": tile_keep_ratio}).tiling
    assert part.tile(picture(columns, rows), SETTINGS).tiles.shape == (tiles, 56, 56, 3)


def write_run(folder, **tasks):
    """A run whose documents have 20 uncompressed visual tokens and what each of two layers saw."""
    lines = [
        {
            "task": task,
            "split": "test",
            "doc_id": number,
            "account": {
                "tiles": 1,
                "compressed_tiles": 0,
                "visual_tokens_uncompressed": 20,
                "visual_tokens_per_layer": layers,
            },
        }
        for task, documents in tasks.items()
        for number, layers in enumerate(documents)
    ]
    (folder / "answers.rank0.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize(
    ("name", "place", "field"),
    [
        ("fastv", "decoder", "target_ratio"),
        ("sparsevlm", "decoder", "target_ratio"),
        ("downsample", "tiling", "tile_keep_ratio"),
    ],
)
def test_a_ratio_from_an_earlier_run_is_the_mean_over_benchmarks_of_its_tokens_in_all_layers(
    name, place, field, tmp_path
):
    # docvqa: (20 + 10) / 2 and (10 + 10) / 2 of 20 are 0.625; chartqa: 0.375. A text question has no visual tokens.
    write_run(tmp_path, docvqa=[(20, 10), (10, 10)], chartqa=[(10, 5)])
    method = registry.build(name, {"ratio_from": str(tmp_path)})
    assert getattr(getattr(method, place).config, field) == pytest.approx(0.5)
    assert method.arguments()[field] == pytest.approx(0.5)  # what a run's record shows
    with pytest.raises(ConfigError, match=f"{field} and ratio_from; give one"):
        registry.build(name, {"ratio_from": str(tmp_path), field: 0.3})
    again = registry.build(name, {key: value for key, value in method.arguments().items() if value is not None})
    assert again.arguments() == method.arguments()
    with pytest.raises(ConfigError, match=r"holds no answers.rank\*.jsonl"):
        registry.build(name, {"ratio_from": str(tmp_path / "nowhere")})


@pytest.mark.parametrize("name", ["fastv", "sparsevlm", "downsample", "pool", "random"])
def test_a_run_that_saved_no_token_sets_no_ratio(name, tmp_path):
    # One that saves by tiling, too: its account knows the tiles that it had.
    write_run(tmp_path, docvqa=[(20, 20)])
    with pytest.raises(ConfigError, match=r"saved none|compressed no tile"):
        registry.build(name, {"ratio_from": str(tmp_path)}).connector.check(
            VicoInternVLConfig(has_low_connector=True), "c"
        )


def test_a_line_that_was_cut_off_is_passed_over(tmp_path):
    write_run(tmp_path, docvqa=[(20, 10)])
    file = tmp_path / "answers.rank0.jsonl"
    file.write_text(file.read_text() + file.read_text().strip()[:-1])  # ends with a brace, and is no JSON
    assert registry.build("fastv", {"ratio_from": str(tmp_path)}).decoder.config.target_ratio == pytest.approx(0.75)


def test_two_parts_do_not_both_save_what_an_earlier_run_saved(tmp_path):
    write_run(tmp_path, docvqa=[(20, 10)])
    with pytest.raises(ConfigError, match="'downsample' and 'fastv' would each save as much as ratio_from measured"):
        registry.build("downsample+fastv", {"ratio_from": str(tmp_path)})


def test_pool_averages_the_tiles_that_random_compresses():
    tiles = RequestTiles("docvqa_val/test/7", torch.zeros(9, dtype=torch.long), None)
    pooled, random = (registry.build(name, {"ratio": 0.4}).connector.route(tiles, None) for name in ("pool", "random"))
    assert torch.equal(pooled, random)
    assert registry.build("pool").connector.route(tiles, None).all()


def test_downsample_refuses_an_impossible_share():
    with pytest.raises(ConfigError, match=r"tile_keep_ratio=0.0; expected the share of an image's tiles"):
        registry.build("downsample", {"tile_keep_ratio": 0.0})


def test_a_tile_limit_still_holds():
    part = registry.build("downsample", {"tile_keep_ratio": 1.0}).tiling
    limited = TilingSettings(tile_size=56, min_tiles=1, max_tiles=1, use_thumbnail=True)
    assert part.tile(picture(4, 3), limited).grid == (1, 1, 1)
