"""Requests and engines of the tests of devices."""

from collections.abc import Callable
from typing import Any

import pytest

from vico_eval.engine.engine import Engine
from vico_eval.engine.loading import find_engine
from vico_eval.engine.requests import GenerationSettings, Text
from vico_eval.families.internvl.checkpoint import load_model
from vico_eval.families.internvl.donor import adopt

from .systems import SYSTEMS, picture, request

NEW_TOKENS = 3


@pytest.fixture
def weights_are_read_in_this_thread(monkeypatch):
    """An emulation lasts for one thread, and transformers reads weights in several."""
    monkeypatch.setenv("HF_DEACTIVATE_ASYNC_LOAD", "1")


@pytest.fixture(scope="session")
def requests():
    """One without a picture, so that every batch has padding, one with a picture and one with two."""
    settings = GenerationSettings(max_new_tokens=NEW_TOKENS)
    return [
        request(0, Text("No picture at all?"), settings=settings),
        request(1, picture(2, 1, 1), Text("Which?"), settings=settings),
        request(2, picture(1, 1, 2), Text("This, or"), picture(2, 2, 3), Text("that one?"), settings=settings),
    ]


@pytest.fixture(scope="session")
def engine_on(checkpoint_for) -> Callable[..., Engine]:
    """Makes an engine of a system; those that share weights on the same devices share a model.

    Args: the system's name, and how its model is loaded: arguments of `load_model`.
    """
    models: dict[str, Any] = {}

    def make(name: str, **placed: Any) -> Engine:
        method, own = SYSTEMS[name]
        found = find_engine({**checkpoint_for(method), "method": method, "device": "cpu", **own})
        known_by = str((found.settings.pretrained, found.settings.flash_from, placed))
        if known_by not in models:
            found.checkpoint.config.image_token_id = found.preprocessor.image_token_id
            model = load_model(found.checkpoint, dtype="float32", **placed)
            if found.donor is not None:
                adopt(model, found.donor)
            models[known_by] = model
        model = models[known_by]
        return Engine(model, found.tokenizer, found.preprocessor, [found.method], batch_size=3, show_progress=False)

    return make


@pytest.fixture(scope="session")
def on_cpu(engine_on, requests) -> Callable[[str], Any]:
    """What a system answers on the CPU."""
    known: dict[str, Any] = {}

    def answers(name: str) -> Any:
        if name not in known:
            known[name] = engine_on(name, device="cpu").answer(requests)
        return known[name]

    return answers
