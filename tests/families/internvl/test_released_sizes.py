"""All sizes of InternVL3.5 are built on the meta device: names, shapes and numbers of weights, plain and Flash."""

import re
from functools import cache

import pytest
import torch

from vico_eval.families.internvl.config import from_checkpoint_config
from vico_eval.families.internvl.modeling import VicoInternVL
from vico_eval.families.internvl.released_layout import _released_weights

from .released_sizes import HEAD_DIM, SIZES, VOCABULARY

ROUTER = ("gating.", "pooling_before_gating.")
DEAD = re.compile(r"pooling_before_gating\.(attn|norm)[34]\.")
HEAD = frozenset({"language_model.lm_head.weight"})
FLASH = HEAD | {"mlp2.0.weight", "gating.0.weight"}


@cache
def released_shapes(size, with_flash):
    """Shape of every tensor in the released layout, by name; no weight takes any memory."""
    config = from_checkpoint_config(SIZES[size].released_config(), FLASH if with_flash else HEAD)
    with torch.device("meta"):
        model = VicoInternVL(config)
    shapes = {}
    for name, parts in _released_weights(model).items():
        rows = sum(part.shape[0] for part in parts)
        shapes[name] = (rows, *parts[0].shape[1:])
    return shapes


def weights_of(shapes, *prefixes):
    """Number of weights under some names, all by default."""
    return sum(torch.Size(shape).numel() for name, shape in shapes.items() if name.startswith(prefixes or ""))


@pytest.mark.parametrize("size", SIZES)
def test_the_plain_model_has_as_many_weights_as_its_card_says(size):
    assert round(weights_of(released_shapes(size, False)) / 1e9, 1) == SIZES[size].billions


@pytest.mark.parametrize("size", SIZES)
def test_flash_adds_a_connector_and_a_router(size):
    plain, flash = (released_shapes(size, with_flash) for with_flash in (False, True))
    assert {name: flash.get(name) for name in plain} == plain
    added = flash.keys() - plain.keys()
    assert all(name.startswith(("mlp2.", *ROUTER)) for name in added)
    width, seen = SIZES[size].width, SIZES[size].vision["hidden_size"]
    # LayerNorm over 16 stacked tokens, then three layers of widths 2D, 2D and D with biases.
    connector = 2 * 16 * seen + (16 * seen + 1) * 2 * width + (2 * width + 1) * 2 * width + (2 * width + 1) * width
    assert weights_of(flash, "mlp2.") == connector


@pytest.mark.parametrize(("size", "with_dead", "without"), [("1B", 50.4, 42.0), ("38B", 491.7, 409.7)])
def test_the_router_is_as_large_as_the_vision_encoder_is_wide(size, with_dead, without):
    """In millions; the dead blocks are in the released files and have no module here."""
    shapes = {name: shape for name, shape in released_shapes(size, True).items() if name.startswith(ROUTER)}
    alive = {name: shape for name, shape in shapes.items() if not DEAD.match(name)}
    assert round(weights_of(shapes) / 1e6, 1) == with_dead
    assert round(weights_of(alive) / 1e6, 1) == without
    same_vision = [other for other in SIZES if SIZES[other].vision == SIZES[size].vision]
    assert {weights_of(released_shapes(other, True), *ROUTER) for other in same_vision} == {weights_of(shapes)}


def test_the_largest_has_241_billion_weights():
    assert round(weights_of(released_shapes("241B-A28B", True)) / 1e9, 3) == 241.711


@pytest.mark.parametrize("size", SIZES)
def test_names_and_shapes(size):
    """A tensor of each kind, in the last layer, by the released names."""
    made, shapes = SIZES[size], released_shapes(size, True)
    seen, width, inner = made.vision["hidden_size"], made.width, made.inner
    last_vision = f"vision_model.encoder.layers.{made.vision['num_hidden_layers'] - 1}"
    last = f"language_model.model.layers.{made.layers - 1}"
    mlp = f"{last}.mlp.experts.{made.experts - 1}" if made.experts else f"{last}.mlp"
    expected = {
        "vision_model.embeddings.position_embedding": (1, 1 + 32 * 32, seen),
        f"{last_vision}.attn.qkv.weight": (3 * seen, seen),
        f"{last_vision}.mlp.fc1.weight": (made.vision["intermediate_size"], seen),
        f"{last_vision}.ls1": (seen,),
        "mlp1.0.weight": (4 * seen,),
        "mlp1.1.weight": (width, 4 * seen),
        "mlp1.3.weight": (width, width),
        "mlp2.1.weight": (2 * width, 16 * seen),
        "pooling_before_gating.attn4.in_proj_weight": (3 * seen, seen),
        "language_model.model.embed_tokens.weight": (VOCABULARY, width),
        "language_model.lm_head.weight": (VOCABULARY, width),
        f"{last}.self_attn.q_proj.weight": (made.heads * HEAD_DIM, width),
        f"{last}.self_attn.k_proj.weight": (made.key_heads * HEAD_DIM, width),
        f"{last}.self_attn.o_proj.weight": (width, made.heads * HEAD_DIM),
        f"{last}.self_attn.q_norm.weight": (HEAD_DIM,),
        f"{mlp}.gate_proj.weight": (inner, width),
        f"{mlp}.down_proj.weight": (width, inner),
    }
    if made.experts:
        expected[f"{last}.mlp.gate.weight"] = (made.experts, width)
    assert {name: shapes.get(name) for name in expected} == expected
    # One more layer, or one less, would have other names.
    assert not any(name.startswith(f"language_model.model.layers.{made.layers}.") for name in shapes)
    assert (f"{last_vision}.attn.q_norm.weight" in shapes) == made.vision["qk_normalization"]
    assert (f"{last_vision}.attn.qkv.bias" in shapes) == made.vision["qkv_bias"]
