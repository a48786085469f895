"""Settings that can't be combined, and the examples."""

import math
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from vico_eval.errors import ConfigError
from vico_eval.training.config import ConsistencyConfig, RouterConfig, read_consistency, read_router

from .conftest import OPTIMIZER

EXAMPLES = Path(__file__).parents[2] / "models" / "training"


def test_a_window_that_never_gives_a_label_is_refused(router_settings):
    with pytest.raises(ValidationError, match="no tile would ever get a label"):
        RouterConfig.model_validate(router_settings | {"window": 64, "burn_in": 64})


def test_a_kernel_that_can_not_compute_in_float32_is_refused(consistency_settings):
    changes = {"precision": "fp32", "attn_implementation": "flash_attention_2"}
    with pytest.raises(ValidationError, match="use precision bf16"):
        ConsistencyConfig.model_validate(consistency_settings | changes)


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
    ],
)
def test_numbers_that_nothing_can_be_trained_with_are_refused(consistency_settings, tmp_path, changes, place):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(consistency_settings | {"out": "x"} | changes))
    with pytest.raises(ConfigError, match=place):
        read_consistency(path)
