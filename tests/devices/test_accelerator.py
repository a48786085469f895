"""On an accelerator, and over two of them, every method answers as on the CPU, and no operation mixes devices."""

import pytest

from .emulation import ACCELERATOR, SECOND, emulated
from .systems import ON_TILES, SYSTEMS

PARTS = ("vision_tower", "connector_high", "connector_low", "router", "image_router", "lvtc")
DECODER = "language_model.model"
TIED = (f"{DECODER}.embed_tokens", "language_model.lm_head")
OVER_TWO = {
    # The head is tied to the embedding.
    **dict.fromkeys(
        (*PARTS, f"{DECODER}.embed_tokens", f"{DECODER}.rotary_emb", "language_model.lm_head"), ACCELERATOR
    ),
    **{f"{DECODER}.layers.{layer}": (ACCELERATOR, SECOND)[layer // 2] for layer in range(4)},
    f"{DECODER}.norm": SECOND,
}
SPLIT = [
    *("vanilla", "vico", "visionzip", "fastv", "sparsevlm", "pyramiddrop", "fitprune", "dart", "lvtc"),
    *("sparsevlm plus", "dart in its own order", "vico+fastv", "top_attention+sparsevlm", "rvtc_area+pvtc+fastv"),
]
"""Each kind of method in the decoder, alone and behind others; those before it end on the first device."""

OF_TOY = ["vanilla", "fastv", "sparsevlm", "pyramiddrop", "fitprune", "dart", "visionzip", "cdpruner", "holov"]


pytestmark = pytest.mark.usefixtures("weights_are_read_in_this_thread")


@pytest.mark.parametrize("name", ON_TILES)
def test_every_method_on_an_accelerator(name, engine_on, on_cpu, requests, same_answers):
    expected = on_cpu(name)
    with emulated():
        engine = engine_on(name, device=ACCELERATOR)
        assert {str(weight.device) for weight in engine.model.parameters()} == {ACCELERATOR}
        found = engine.answer(requests)
    assert same_answers(found, expected)


@pytest.mark.filterwarnings("ignore:The following device_map keys")  # no checkpoint has all parts
@pytest.mark.parametrize("name", SPLIT)
def test_over_two_accelerators(name, engine_on, on_cpu, requests, same_answers):
    expected = on_cpu(name)
    with emulated():
        engine = engine_on(name, device_map=OVER_TWO)
        layers = engine.model.language_model.model.layers
        assert [str(next(layer.parameters()).device) for layer in layers] == [ACCELERATOR] * 2 + [SECOND] * 2
        found = engine.answer(requests)
    assert same_answers(found, expected)


@pytest.mark.parametrize("name", OF_TOY)
def test_another_family_on_an_accelerator(name, toy_engine, requests, same_answers):
    expected = toy_engine(*SYSTEMS[name]).answer(requests)
    engine = toy_engine(*SYSTEMS[name])
    with emulated():
        engine.model.to(ACCELERATOR)
        found = engine.answer(requests)
    assert same_answers(found, expected)
