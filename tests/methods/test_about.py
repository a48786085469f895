"""What lists and pages say of a method is what its class needs."""

import pytest

from vico_eval.errors import CheckpointError, ConfigError
from vico_eval.methods import registry
from vico_eval.methods.about import about
from vico_eval.methods.interface import (
    CONNECTOR_INPUTS,
    ENCODER_ATTENTION,
    ENCODER_KEYS,
    QUESTION,
    ModelFacts,
    TileFacts,
)

WORDS = {
    ENCODER_ATTENTION: "attention",
    ENCODER_KEYS: "keys",
    CONNECTOR_INPUTS: "inputs of its connector",
    QUESTION: "the question",
}
"""How the line `Needs:` names what a selection declares."""

REQUIRED = {"random": {"ratio": 0.5}}
"""Arguments of the methods that can't be built without any."""

BARE = ModelFacts(checkpoint="bare", family="bare", num_layers=24, num_heads=8, offers=frozenset(WORDS))
TILED = ModelFacts(
    checkpoint="tiled",
    family="tiled",
    num_layers=24,
    num_heads=8,
    tile=TileFacts(vision_side=32, visual_side=16),
    connectors=frozenset({"high"}),
    offers=frozenset(WORDS),
    score_sources=frozenset({"cls", "mean"}),
    num_vision_layers=24,
)


@pytest.mark.parametrize("name", registry.BUILT_IN)
def test_the_place_is_that_of_the_class_and_a_source_is_named(name):
    assert about(name).place == registry.load(name).place
    assert about(name).source


@pytest.mark.parametrize("name", registry.BUILT_IN)
def test_what_a_selection_asks_for_is_named(name):
    part = registry.load(name)(registry.load(name).Config(**REQUIRED.get(name, {})))
    for need in getattr(part, "needs", ()):
        assert WORDS[need] in about(name).needs


@pytest.mark.parametrize("name", registry.BUILT_IN)
def test_a_plain_model_with_tiles_runs_what_needs_nothing(name):
    method = registry.build(name, REQUIRED.get(name))
    try:
        method.check(TILED)
    except (CheckpointError, ConfigError):
        assert about(name).needs
    else:
        # It gives a selection all that this one can ask for.
        assert not about(name).needs or getattr(method.selection, "needs", None)


@pytest.mark.parametrize("name", registry.BUILT_IN)
def test_what_needs_tiles_is_said_to(name):
    method = registry.build(name, REQUIRED.get(name))
    if method.resolution is not None or (method.connector is not None and method.connector.routes):
        assert about(name).models == "with tiles"
    if about(name).models == "any" and not about(name).needs:
        method.check(BARE)


def test_the_paper_is_the_sources_name():
    assert about("dart").paper == "DART (arXiv 2502.11494, EMNLP 2025)"
    assert about("vico").paper == "ViCO (arXiv 2510.12793)"
    assert about("downsample").paper == "none"
    assert about("fastv").differs.startswith("the released code computes a layer's whole attention matrix;")
