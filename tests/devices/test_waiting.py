"""How often the host waits for the device: each time, whatever was to be computed next comes too late."""

from dataclasses import replace

import pytest
import torch

from vico_eval.engine.requests import GenerationSettings, Text
from vico_eval.methods import registry
from vico_eval.methods.shared.copies import moved

from .conftest import NEW_TOKENS
from .emulation import ACCELERATOR, emulated
from .systems import SYSTEMS, picture, request

pytestmark = pytest.mark.usefixtures("weights_are_read_in_this_thread")

A_BATCH, A_TOKEN = 10, 2

IN_DECODER = {"fastv": 1, "pyramiddrop": 3, "sparsevlm": 3, "fitprune": 3, "dart": 1, "lvtc": 2}
"""Methods in the decoder, and before how many layers they change the tokens."""

A_DECISION = 10
"""For what a part decides of a request before a layer: which tokens are visual, which stay, whether all is finite."""

SELECTIONS = [
    *(name for name in registry.method_names() if registry.build(name, SYSTEMS[name][1]).selection is not None),
    *("visionzip of visual tokens", "divprune to target", "vico+visionzip"),
]
A_SELECTION = 5
"""For whether all is finite, how tokens are grouped, what a choice on the host is made by, and what was chosen."""


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


def of_several_pictures(number):
    """Whose first picture has a size that no other request has, so that methods can't work on them together."""
    return request(number, picture(1 + number, 1, number), Text("This, or"), picture(2, 1, 9), Text("that one?"))


@pytest.mark.parametrize("name", SELECTIONS)
def test_of_a_selection_whatever_the_number_of_requests(name, engine_on):
    with emulated():
        engine = engine_on(name, device=ACCELERATOR)
    (row,) = engine.rows
    waits = []
    for num_requests in (2, 4):
        batch = [engine.preprocessor(of_several_pictures(number)) for number in range(num_requests)]
        row.see.forget()
        with emulated() as emulation, torch.inference_mode():
            ready = row.ready(batch)
        assert all(len(one.entering.tokens) < len(one.seen.tokens) for one in ready)
        waits.append(emulation.waits.total())
    assert waits[0] == waits[1] <= A_SELECTION


def test_tensors_of_one_type_are_copied_together():
    """The shapes 3, 2 x 2, none and 0 come back as they were, and what is there already is not copied."""
    whole = [torch.arange(3), torch.arange(4).view(2, 2), torch.tensor(7), torch.zeros(0, dtype=torch.int64)]
    marks, here = [torch.tensor([True, False])], torch.ones(2)
    with emulated() as emulation:
        there = [[tensor.to(ACCELERATOR) for tensor in tensors] for tensors in (whole, marks)]
        *found, untouched = moved(torch.device("cpu"), *there, [here])
        assert [tensor.tolist() for tensor in found[0]] == [[0, 1, 2], [[0, 1], [2, 3]], 7, []]
        assert [tensor.tolist() for tensor in found[1]] == [[True, False]]
        assert untouched[0] is here
        assert emulation.waits.total() == 2
        (back,) = moved(torch.device(ACCELERATOR), found[0])
        assert {str(tensor.device) for tensor in back} == {ACCELERATOR}
        assert emulation.waits.total() == 2
