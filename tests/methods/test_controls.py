"""The controls: pooling without training, fewer pixels."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from vico_eval.errors import CheckpointError, ConfigError
from vico_eval.families.internvl.config import VicoInternVLConfig
from vico_eval.families.internvl.facts import facts_of
from vico_eval.families.internvl.prompting import InternVLPrompting, InternVLSettings
from vico_eval.methods import registry
from vico_eval.methods.interface import RequestTiles, TileLimits
from vico_eval.methods.pool import means_of_squares

PROMPTING = InternVLPrompting(InternVLSettings(tile_size=56))


def test_pool_averages_neighbours_in_both_directions():
    # A 4 x 4 grid of the numbers 0..15: the first square holds 0, 1, 4, 5, whose mean is 2.5.
    tokens = torch.arange(16.0).reshape(1, 16, 1)
    pooled = means_of_squares(torch.cat([tokens, -tokens], dim=2))
    assert pooled[0, :, 0].tolist() == [2.5, 4.5, 10.5, 12.5]
    assert pooled[0, :, 1].tolist() == [-2.5, -4.5, -10.5, -12.5]


def test_pool_needs_no_parts_of_vico_but_an_even_grid():
    pool = registry.build("pool").connector
    pool.check(facts_of(VicoInternVLConfig(), "base"))
    with pytest.raises(CheckpointError, match=r"visual tokens per tile; .* needs a square grid of even side"):
        pool.check(facts_of(VicoInternVLConfig(vision_config={"image_size": [84, 84], "patch_size": [14, 14]}), "odd"))


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
    part = registry.build("downsample", {"tile_keep_ratio": tile_keep_ratio}).resolution
    assert PROMPTING.cut(picture(columns, rows), TileLimits(1, 12), part).pieces.shape == (tiles, 56, 56, 3)


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
                "visual_tokens": layers[0],
                "visual_tokens_uncompressed": 20,
                "visual_tokens_per_layer": layers,
                "text_tokens": 3,
                "generated_tokens": 1,
            },
        }
        for task, documents in tasks.items()
        for number, layers in enumerate(documents)
    ]
    (folder / "answers.rank0.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_results(folder, **{task: len(documents) for task, documents in tasks.items()})


def write_results(folder, date="20260101_000000", offset=None, **counts):
    """lmms-eval's results, as far as they count documents."""
    samples = {task: {"original": 100, "effective": count} for task, count in counts.items()}
    results = {"n-samples": samples, "config": {"offset": offset}}
    (folder / "model").mkdir(exist_ok=True)
    (folder / "model" / f"{date}_results.json").write_text(json.dumps(results))


@pytest.mark.parametrize(
    ("name", "place", "field"),
    [
        ("fastv", "decoder", "target_ratio"),
        ("sparsevlm", "decoder", "target_ratio"),
        ("downsample", "resolution", "tile_keep_ratio"),
    ],
)
def test_a_ratio_from_an_earlier_run_is_the_mean_over_benchmarks_of_its_tokens_in_all_layers(
    name, place, field, tmp_path
):
    # docvqa: (20 + 10) / 2 and (10 + 10) / 2 of 20 are 0.625; chartqa: 0.375. A text question has no visual tokens.
    write_run(tmp_path, docvqa=[(20, 10), (10, 10)], chartqa=[(10, 5)])
    method = registry.build(name, {"ratio_from": str(tmp_path)}).resolved()
    assert getattr(getattr(method, place).config, field) == pytest.approx(0.5)
    assert method.arguments()[field] == pytest.approx(0.5)  # what a run's record shows
    with pytest.raises(ConfigError, match=f"{field} and ratio_from; give one"):
        registry.build(name, {"ratio_from": str(tmp_path), field: 0.3}).resolved()
    again = registry.build(name, {key: value for key, value in method.arguments().items() if value is not None})
    assert again.arguments() == method.arguments()
    with pytest.raises(ConfigError, match=r"has no answers.rank\*.jsonl"):
        registry.build(name, {"ratio_from": str(tmp_path / "nowhere")}).resolved()


@pytest.mark.parametrize("name", ["fastv", "sparsevlm"])
def test_each_benchmark_has_the_target_that_the_earlier_run_measured_on_it(name, tmp_path):
    write_run(tmp_path, docvqa=[(20, 10), (10, 10)], chartqa=[(10, 5)])
    config = registry.build(name, {"ratio_from": str(tmp_path)}).resolved().decoder.config
    assert config.target_of("docvqa/test/7") == pytest.approx(0.625)
    assert config.target_of("chartqa/test/0") == pytest.approx(0.375)
    with pytest.raises(
        ConfigError, match=r"no visual tokens of 'mme'; it has chartqa, docvqa\..*or pass target_ratio="
    ):
        config.target_of("mme/test/0")
    assert registry.build(name, {"target_ratio": 0.6}).decoder.config.target_of("mme/test/0") == 0.6
    assert registry.build(name).decoder.config.target_of("mme/test/0") is None


def test_a_target_that_only_one_benchmark_misses_is_refused_by_its_name(tmp_path):
    write_run(tmp_path, docvqa=[(20, 20)], chartqa=[(20, 0)])
    method = registry.build("fastv", {"ratio_from": str(tmp_path), "layer": 12}).resolved()
    config = VicoInternVLConfig()
    config.text_config.num_hidden_layers = 24
    with pytest.raises(ConfigError, match=r"can't reach the 0.500 that ratio_from=.* measured on chartqa: 12 of 24"):
        method.check(facts_of(config, "c"))


@pytest.mark.parametrize("name", ["fastv", "sparsevlm", "downsample", "pool", "random"])
def test_a_run_that_saved_no_token_sets_no_ratio(name, tmp_path):
    # One that saves by tiling, too: its account knows the tiles that it had.
    write_run(tmp_path, docvqa=[(20, 20)])
    with pytest.raises(ConfigError, match=r"saved none|compressed no tile"):
        registry.build(name, {"ratio_from": str(tmp_path)}).resolved().check(
            facts_of(VicoInternVLConfig(parts={"low_connector": {}}), "c")
        )


def test_a_line_that_was_cut_off_is_passed_over(tmp_path):
    write_run(tmp_path, docvqa=[(20, 10)])
    file = tmp_path / "answers.rank0.jsonl"
    file.write_text(file.read_text() + file.read_text().strip()[:-1])  # ends with a brace, and is no JSON
    assert registry.build(
        "fastv", {"ratio_from": str(tmp_path)}
    ).resolved().decoder.config.target_ratio == pytest.approx(0.75)


def test_a_ratio_from_a_run_that_is_not_finished_is_refused(tmp_path):
    def ratio():
        return registry.build("fastv", {"ratio_from": str(tmp_path)}).resolved().decoder.config.target_ratio

    write_run(tmp_path, docvqa=[(20, 10)] * 5, chartqa=[(20, 20)] * 2)
    assert ratio() == pytest.approx((0.75 + 1) / 2)
    (tmp_path / "model" / "20260101_000000_results.json").unlink()  # killed before lmms-eval wrote any
    with pytest.raises(ConfigError, match=r"not finished.*chartqa \(answers to 2 of an unknown number of documents\)"):
        ratio()
    write_results(tmp_path, docvqa=24, chartqa=2)
    with pytest.raises(ConfigError, match=r"only: docvqa \(answers to 5 of 24 documents\)\. Expected"):
        ratio()
    # The newest results hold: of the first five documents; of the last five of a hundred.
    write_results(tmp_path, "20260102_000000", docvqa=5)
    assert ratio() == pytest.approx((0.75 + 1) / 2)
    write_results(tmp_path, "20260103_000000", docvqa=24, chartqa=24)
    write_results(tmp_path, "20260104_000000", offset=95, docvqa=24)
    write_results(tmp_path, "20260105_000000", offset=98, chartqa=24)
    assert ratio() == pytest.approx((0.75 + 1) / 2)
    # A document that failed has ended too, and half a results file says nothing.
    write_results(tmp_path, "20260106_000000", docvqa=6)
    (tmp_path / "20260107_000000_results.json").write_text('{"n-samples": {"docvqa"')
    failure = {"task": "docvqa", "split": "test", "doc_id": 5, "reason": "no picture"}
    (tmp_path / "failures.rank0.jsonl").write_text(json.dumps(failure) + "\n")
    assert ratio() == pytest.approx((0.75 + 1) / 2)


def test_a_line_with_a_bad_byte_or_of_another_kind_makes_its_document_missing(tmp_path):
    write_run(tmp_path, docvqa=[(20, 10)] * 2)
    file = tmp_path / "answers.rank0.jsonl"
    first, second = file.read_bytes().splitlines()
    for broken in (second[:9] + b"\xff" + second[9:], b"\0" * 40, second + b"\0\0", b"[1]", b'{"task": "docvqa"}'):
        file.write_bytes(first + b"\n" + broken + b"\n")
        with pytest.raises(ConfigError, match=r"docvqa \(answers to 1 of 2 documents\)"):
            registry.build("fastv", {"ratio_from": str(tmp_path)}).resolved()


def test_a_ratio_from_a_run_of_vlmevalkit_counts_once_it_is_scored(tmp_path):
    write_run(tmp_path, POPE=[(20, 10)])
    (tmp_path / "model" / "20260101_000000_results.json").unlink()
    status = tmp_path / "model" / "status.json"
    status.write_text(json.dumps({"datasets": {"POPE": {"metrics": {}}}}))
    with pytest.raises(ConfigError, match="is not finished"):
        registry.build("fastv", {"ratio_from": str(tmp_path)}).resolved()
    status.write_text(json.dumps({"datasets": {"POPE": {"metrics": {"Overall": 50.0}}}}))
    assert registry.build("fastv", {"ratio_from": str(tmp_path)}).resolved().decoder.config.target_ratio == 0.75


def test_two_parts_do_not_both_save_what_an_earlier_run_saved(tmp_path):
    write_run(tmp_path, docvqa=[(20, 10)])
    with pytest.raises(ConfigError, match="'downsample' and 'fastv' would each save as much as ratio_from measured"):
        registry.build("downsample+fastv", {"ratio_from": str(tmp_path)})
    both = {"downsample.ratio_from": str(tmp_path), "fastv.ratio_from": str(tmp_path)}
    with pytest.raises(ConfigError, match=r"more together\. Give it to one of them \(downsample\.ratio_from=\)"):
        registry.build("downsample+fastv", both)
    registry.build("downsample+fastv", {"fastv.ratio_from": str(tmp_path)}).resolved()


def test_pool_averages_the_tiles_that_random_compresses():
    tiles = RequestTiles("docvqa_val/test/7", torch.zeros(9, dtype=torch.long), None)
    pooled, random = (registry.build(name, {"ratio": 0.4}).connector.route(tiles, None) for name in ("pool", "random"))
    assert torch.equal(pooled, random)
    assert registry.build("pool").connector.route(tiles, None).all()


def test_downsample_refuses_an_impossible_share():
    with pytest.raises(ConfigError, match=r"tile_keep_ratio=0.0; expected the share of an image's tiles"):
        registry.build("downsample", {"tile_keep_ratio": 0.0})


def test_a_tile_limit_still_holds():
    part = registry.build("downsample", {"tile_keep_ratio": 1.0}).resolution
    assert PROMPTING.cut(picture(4, 3), TileLimits(1, 1), part).grid == (1, 1, 1)
