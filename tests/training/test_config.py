"""Settings that can't be combined, and the examples."""

import json
import math
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from vico_eval.errors import ConfigError
from vico_eval.paths import models_dir
from vico_eval.training.config import ConsistencyConfig, RouterConfig, read_consistency, read_router
from vico_eval.training.data.config import MetaEntry

from .conftest import OPTIMIZER

EXAMPLES = Path(__file__).parents[2] / "models" / "training"


def test_a_window_that_never_gives_a_label_is_refused(router_settings):
    with pytest.raises(ValidationError, match="no tile would ever be labelled"):
        RouterConfig.model_validate(router_settings | {"window": 64, "burn_in": 64})


def test_a_kernel_that_can_not_compute_in_float32_is_refused(consistency_settings):
    changes = {"precision": "fp32", "attn_implementation": "flash_attention_2"}
    with pytest.raises(ValidationError, match="use precision bf16"):
        ConsistencyConfig.model_validate(consistency_settings | changes)


def test_adapters_and_a_trained_vision_encoder_are_refused(consistency_settings):
    with pytest.raises(ValidationError, match="set train_vision: false"):
        ConsistencyConfig.model_validate(consistency_settings | {"lora": {"rank": 2}})
    changes = {"lora": {"rank": 2}, "train_vision": False}
    assert ConsistencyConfig.model_validate(consistency_settings | changes).lora


def test_the_defaults_are_the_papers(consistency_settings):
    config = ConsistencyConfig.model_validate(consistency_settings)
    assert (config.train_vision, config.low_share_per, config.data.video_frames) == (True, "image", (8, 32))


def test_the_built_in_models_training_stands_on_no_default_that_may_change():
    """Of those that follow the paper."""
    folder = models_dir() / "vico-tiny"
    stages = {"consistency": {"train_vision", "low_share_per"}, "router": {"router_dropout"}}
    for name, keys in (stages | {"image_router": stages["router"]}).items():
        settings = yaml.safe_load((folder / f"{name}.yaml").read_text())
        assert settings.keys() >= keys
        assert "video_frames" in settings["data"]


def test_the_router_examples_train_on_an_existing_list_of_data_sets():
    """Its paths are those of the public data, which is not here."""
    for path in EXAMPLES.glob("router-*.yaml"):
        (source,) = read_router(path).data.sources
        entries = json.loads((EXAMPLES.parents[1] / source.meta).read_text())
        assert {"docvqa", "chartqa"} <= {name.partition("_")[0] for name in entries}
        for entry in entries.values():
            MetaEntry.model_validate(entry)


def test_the_examples_are_valid():
    for path in EXAMPLES.glob("consistency-*.yaml"):
        read_consistency(path)
    for path in EXAMPLES.glob("router-*.yaml"):
        read_router(path)


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"train": OPTIMIZER | {"betas": [2, 3]}}, "train.betas.0"),
        ({"train": OPTIMIZER | {"betas": [0.9, 1]}}, "train.betas.1"),
        ({"train": OPTIMIZER | {"learning_rate": math.inf}}, "train.learning_rate"),
        ({"train": OPTIMIZER | {"clip_norm": math.nan}}, "train.clip_norm"),
        ({"seed": 10**30}, "seed"),
        ({"lora": {"rank": 10**12}}, "lora.rank"),
        ({"global_batch": 10**18}, "sorted together"),
        ({"data": {"sources": [{"jsonl": "a"}], "max_tiles": 10**9}}, "data.max_tiles"),
        ({"data": {"sources": [{"jsonl": "a", "repeat": math.inf}]}}, "repeat"),
        ({"data": {"sources": [{"jsonl": "a"}], "workers": 10**9}}, "data.workers"),
        ({"data": {"sources": [{"jsonl": "a"}], "video_frames": [0, 8]}}, "data.video_frames"),
        ({"data": {"sources": [{"jsonl": "a"}], "video_frames": [9, 8]}}, "expected .fewest, most."),
    ],
)
def test_numbers_that_nothing_can_be_trained_with_are_refused(consistency_settings, tmp_path, changes, place):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(consistency_settings | {"out": "x"} | changes))
    with pytest.raises(ConfigError, match=place):
        read_consistency(path)
