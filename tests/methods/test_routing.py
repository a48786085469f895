"""Which tiles each method compresses, on requests small enough to check by hand."""

import json

import pytest
import torch

from vico_eval.errors import CheckpointError, ConfigError
from vico_eval.families.internvl.config import VicoInternVLConfig
from vico_eval.families.internvl.facts import facts_of
from vico_eval.methods import registry
from vico_eval.methods.interface import RequestTiles

RELEASED = VicoInternVLConfig(parts={"low_connector": {}, "router": {}})  # relative 0.1, absolute 0.5
PLAIN = VicoInternVLConfig()


def route(method, arguments=None, scores=None, images=None, config=RELEASED, key="docvqa_val/test/7"):
    images = [0] * len(scores) if images is None else images
    p_compress = None if scores is None else torch.tensor(scores)
    part = registry.build(method, arguments).connector
    return part.route(RequestTiles(key, torch.tensor(images), p_compress), facts_of(config, "x")).tolist()


def test_vico_takes_its_thresholds_from_the_checkpoint():
    # The 0.1 quantile of three scores lies between the lowest two: the lowest always stays.
    assert route("vico", scores=[0.6, 0.9, 0.7]) == [False, True, True]
    assert route("vico", scores=[0.2, 0.4, 0.6]) == [False, False, True]


def test_a_lone_tile_is_compressed_only_in_the_absolute_mode():
    assert route("vico", scores=[0.99]) == [False]
    assert route("vico", {"absolute_only": True}, scores=[0.99]) == [True]


def test_the_callers_thresholds_win():
    assert route("vico", {"relative_threshold": 0.0, "absolute_threshold": 0.0}, scores=[0.1, 0.2]) == [False, True]
    # A threshold of 0 is a value, not "none given".
    assert route("vico", {"absolute_threshold": 0.0}, scores=[0.1, 0.2, 0.3]) == [False, True, True]


def test_image_level_routing_decides_by_the_mean_of_an_image():
    # means: image 0 (0.9 + 0.3) / 2 = 0.6, image 1 0.4
    assert route("image_vir", scores=[0.9, 0.3, 0.4], images=[0, 0, 1]) == [True, True, False]
    assert route("image_vir", {"absolute_threshold": 0.4}, scores=[0.9, 0.3, 0.4], images=[0, 0, 1]) == [True] * 3


def test_image_level_routing_uses_the_threshold_calibrated_for_its_router():
    config = VicoInternVLConfig(parts={"low_connector": {}, "router": {"image_threshold": 0.8}})
    assert route("image_vir", scores=[0.7, 0.7], config=config) == [False, False]


def test_random_hits_the_ratio_over_documents_and_repeats_itself():
    keys = [f"docvqa_val/test/{number}" for number in range(2000)]
    draws = [route("random", {"ratio": 0.3}, images=[0] * 5, key=key) for key in keys]
    share = sum(map(sum, draws)) / (5 * len(keys))
    # standard error of the share: sqrt(.3 * .7 / 10000) = 0.005 at most
    assert share == pytest.approx(0.3, abs=0.015)
    assert draws == [route("random", {"ratio": 0.3}, images=[0] * 5, key=key) for key in keys]
    assert draws != [route("random", {"ratio": 0.3, "seed": 1}, images=[0] * 5, key=key) for key in keys]
    each_place = torch.tensor(draws).float().mean(dim=0)
    assert each_place.min() > 0.25
    assert each_place.max() < 0.35


def write_run(folder, task, accounts):
    counts = {"visual_tokens": 1, "visual_tokens_uncompressed": 1, "visual_tokens_per_layer": [1]}
    counts |= {"text_tokens": 1, "generated_tokens": 1}
    lines = [
        {"task": task, "split": "test", "doc_id": number}
        | {"account": {"tiles": tiles, "compressed_tiles": compressed, **counts}}
        for number, (tiles, compressed) in enumerate(accounts)
    ]
    (folder / "answers.rank0.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    results = {"n-samples": {task: {"original": len(lines), "effective": len(lines)}}, "config": {}}
    (folder / "20260101_000000_results.json").write_text(json.dumps(results))


def test_random_reads_vicos_ratio_benchmark_by_benchmark(tmp_path):
    write_run(tmp_path, "docvqa_val", [(4, 4), (6, 6)])
    assert route("random", {"ratio_from": str(tmp_path)}, images=[0] * 3) == [True] * 3
    with pytest.raises(ConfigError, match="has no visual tokens of 'chartqa'; it has docvqa_val"):
        route("random", {"ratio_from": str(tmp_path)}, images=[0] * 3, key="chartqa/test/0")


def test_random_says_when_there_is_no_run(tmp_path):
    method = registry.build("random", {"ratio_from": str(tmp_path / "nowhere")})
    with pytest.raises(ConfigError, match=r"has no answers.rank\*.jsonl; expected the record_dir of a finished run"):
        method.connector.check(facts_of(RELEASED, "vico-tiny"))


@pytest.mark.parametrize("name", ["vico", "image_vir", "all_compress", "random"])
def test_a_checkpoint_without_vicos_parts_is_refused(name):
    part = registry.build(name, {"ratio": 0.5} if name == "random" else None).connector
    with pytest.raises(CheckpointError, match=f"'vico-tiny-base' has no low connector, and method '{name}' needs one"):
        part.check(facts_of(PLAIN, "vico-tiny-base"))


def test_a_checkpoint_without_a_router_is_refused():
    part = registry.build("vico").connector
    with pytest.raises(CheckpointError, match="'warm' has no router, and method 'vico' needs one"):
        part.check(facts_of(VicoInternVLConfig(parts={"low_connector": {}}), "warm"))
