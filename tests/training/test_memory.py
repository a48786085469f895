"""The memory that models/training/README.md works out, added up from the sizes of InternVL3.5."""

import pytest

from vico_eval.families.internvl.config import from_checkpoint_config
from vico_eval.paths import models_dir
from vico_eval.training.models.blank import blank_model, building
from vico_eval.training.models.opening import add_low_connector, add_router

from ..families.internvl.released_sizes import SIZES  # noqa: TID252 - one list of sizes


def num_weights(size):
    """Billions of weights of every part, at full size and without memory."""
    model = blank_model(from_checkpoint_config(SIZES[size].released_config(), frozenset()))
    with building(is_blank=True):
        add_low_connector(model)
        add_router(model, "tile", dropout=0.1)
    return {name: sum(weight.numel() for weight in part.parameters()) / 1e9 for name, part in model.named_children()}


@pytest.mark.parametrize(
    ("size", "name", "gpus", "router"),
    [
        ("1B", "1B", 1, "42M"),
        ("8B", "8B", 8, "42M"),
        ("38B", "38B", 8, "410M"),
        ("241B-A28B", "241B", 64, "410M"),
    ],
)
def test_the_memory_that_is_documented_is_that_of_the_models(size, name, gpus, router):
    text = (models_dir() / "training" / "README.md").read_text(encoding="utf-8")
    weights = num_weights(size)
    vision, low = weights["vision_tower"], weights["connector_low"]
    base = weights["language_model"] + weights["connector_high"] + vision
    trained = base + low
    all_trained, reference = 16 * trained, 2 * base
    row = f"| {name} | {trained:.3g} B, {all_trained:.0f} GB | {reference:.3g} GB | "
    assert f"{row}{all_trained + reference:.0f} GB |" in text
    assert f"{1000 * weights['router']:.0f}M" == router
    assert router in text
    if gpus > 1:
        # Stage 1: all in float32 and the reference in bfloat16. Stage 2: the policy in bfloat16, the base in float32.
        loading = 4 * trained + 2 * base
        router_loading = 2 * trained + 4 * base
        saving = 8 * trained / gpus
        numbers = f"{loading:.0f} GB | {4 * base:.0f} GB | {router_loading:.0f} GB | {saving:.1f} GB |"
        assert f"| {name} on {gpus} GPUs | {numbers}" in text
