"""How often the host waits for the device: each time, whatever was to be computed next comes too late."""

from dataclasses import replace

import pytest

from vico_eval.engine.requests import GenerationSettings

from .conftest import NEW_TOKENS
from .emulation import ACCELERATOR, emulated

pytestmark = pytest.mark.usefixtures("weights_are_read_in_this_thread")

A_BATCH, A_TOKEN = 10, 2

IN_DECODER = {"fastv": 1, "pyramiddrop": 3, "sparsevlm": 3, "fitprune": 3, "dart": 1, "lvtc": 2}
"""Methods in the decoder, and before how many layers they change the tokens."""

A_DECISION = 10
"""For what a part decides of a request before a layer: which tokens are visual, which stay, whether all is finite."""


@pytest.fixture
def waits(engine_on, requests):
    """How often the host waits in a batch: for all but tokens, and for each token."""

    def count(name):
        with emulated():
            engine = engine_on(name, device=ACCELERATOR)
        totals = []
        for number in (NEW_TOKENS, NEW_TOKENS + 2):
            asked = [replace(one, generation=GenerationSettings(max_new_tokens=number)) for one in requests]
            engine.rows[0].see.forget()
            with emulated() as emulation:
                answers = engine.answer(asked)
            assert {answer.account.generated_tokens for answer in answers} == {number}
            totals.append(emulation.waits.total())
        a_token = (totals[1] - totals[0]) / 2
        return totals[0] - a_token * NEW_TOKENS, a_token

    return count


@pytest.mark.parametrize("name", ["vanilla", "vico", "image_vir", "pool", "single_tile", "pvtc"])
def test_of_a_batch(name, waits):
    a_batch, a_token = waits(name)
    assert a_batch <= A_BATCH
    assert a_token <= A_TOKEN


@pytest.mark.parametrize("name", IN_DECODER)
def test_of_a_method_in_the_decoder(name, waits):
    """Masks of its segments take none: where padding stands is known since prefill."""
    a_batch, a_token = waits(name)
    num_with_pictures = 2
    assert a_batch <= A_BATCH + A_DECISION * num_with_pictures * IN_DECODER[name]
    assert a_token <= A_TOKEN - 1
