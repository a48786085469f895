"""Settings that can't be combined, and the examples."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from vico_eval.training.flash.config import ConsistencyConfig, RouterConfig, read_consistency, read_router

EXAMPLES = Path(__file__).parents[3] / "models" / "training"


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
