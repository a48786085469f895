"""Under flash attention every method answers as under SDPA; its masks have no rows, and a padded batch is packed."""

import pytest
import transformers.modeling_flash_attention_utils as flash_of_transformers

from . import flash_attention
from .systems import ON_TILES, SYSTEMS
from .test_accelerator import OF_TOY

KERNEL = "flash_attention_2"


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    """transformers finds the reference where it would import flash-attn; everything on the way is its own."""
    found = flash_attention.flash_attn_func, flash_attention.flash_attn_varlen_func, None
    pads = flash_of_transformers._pad_input, flash_of_transformers._unpad_input
    monkeypatch.setattr(flash_of_transformers, "_lazy_imports", lambda *_, **__: (*found, *pads))
    monkeypatch.setattr(flash_of_transformers, "_loaded_implementation", None)
    flash_attention.CALLS.clear()


def use_flash(model) -> None:
    """By the configurations that the layers read; a checkpoint can't be loaded so on a CPU."""
    for part in (model.vision_tower, model.language_model):
        part.config._attn_implementation = KERNEL


@pytest.mark.parametrize("name", [*ON_TILES, "vico+dart", "top_attention+sparsevlm", "sparsevlm plus"])
def test_every_method(name, engine_on, on_cpu, requests, same_answers):
    expected = on_cpu(name)
    engine = engine_on(name, device="cpu", attn_implementation="eager")  # a model of these tests' own
    use_flash(engine.model)
    assert same_answers(engine.answer(requests), expected)
    # The encoder's tiles and a prompt alone are dense, the batch of prompts is padded.
    assert flash_attention.CALLS["dense"] > 0
    assert flash_attention.CALLS["packed"] > 0


@pytest.mark.parametrize("name", OF_TOY)
def test_another_family(name, toy_engine, requests, same_answers):
    expected = toy_engine(*SYSTEMS[name]).answer(requests)
    engine = toy_engine(*SYSTEMS[name])
    engine.batch_size = 3
    use_flash(engine.model)
    assert same_answers(engine.answer(requests), expected)
    assert flash_attention.CALLS["packed"] > 0
