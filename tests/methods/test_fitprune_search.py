"""The search for recipes makes the tries of the released script (tests/golden/fitprune)."""

from functools import cache

import pytest
import torch

from vico_eval.errors import ConfigError
from vico_eval.families.decoder.decoder import CompressingDecoder
from vico_eval.families.decoder.segments import PromptCache
from vico_eval.methods.shared.fitprune_search import (
    Measure,
    Trial,
    Try,
    Widths,
    best_of,
    dispensable,
    layer_operations,
    recipe_of,
    search,
)

from .released_decoders import Released

GOLDEN = Released("fitprune")
SAMPLES = [f"fit{number}" for number in range(len(GOLDEN.meta["fit"]["lengths"]))]
WIDTHS = Widths(model=32, mlp=64)


@pytest.fixture(scope="module")
def run():
    """Runs all samples through the decoder with a part; the visual tokens that enter each layer of each."""
    model = GOLDEN.model()
    base = model.model

    @torch.inference_mode()
    def through(part):
        model.model = CompressingDecoder(base, part)
        counts = []
        for sample in SAMPLES:
            embeddings, prompt = GOLDEN.prompt(sample)
            cache = PromptCache(model.config, prompt)
            model(inputs_embeds=embeddings, past_key_values=cache)
            counts.append(cache.visual_tokens_per_layer(0))
        return counts

    return through


@pytest.fixture(scope="module")
def received(run):
    part = Measure()
    assert run(part) == [(48,) * 32] * 3
    return part.received


def test_what_tokens_get_in_the_unpruned_model_is_what_the_release_counts(received):
    for number, sample in enumerate(SAMPLES):
        layers = received[f"golden/test/{sample}"]
        assert sorted(layers) == list(range(31))  # nothing leaves behind the last one
        for name in ("own", "cross"):
            found = torch.tensor([getattr(layers[layer], name) for layer in range(31)])
            expected = GOLDEN.tensors[f"fit.{'self' if name == 'own' else name}_sum"][number, :31]
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("reduction", GOLDEN.expected["fit"])
def test_every_try_is_the_released_one(run, received, reduction):
    entering = cache(lambda tolerance: run(Trial(tolerance, received)))
    tries = search(entering, float(reduction), WIDTHS)
    golden = [
        Try(one["alpha"], one["reached"], tuple(one["leave_per_layer"])) for one in GOLDEN.expected["fit"][reduction]
    ]
    assert tries == golden
    assert best_of(tries, float(reduction)) == [one for one in golden if one.reached][-1]


def test_of_the_tries_the_last_that_reached_is_taken_and_not_the_last():
    tries = [Try(0.5, True, (3, 0)), Try(0.25, True, (2, 0)), Try(0.125, False, (1, 0))]
    assert best_of(tries, 0.5).leave == (2, 0)
    with pytest.raises(ConfigError, match=r"no recipe saves 0\.99 of the operations"):
        best_of(tries[-1:], 0.99)


@pytest.mark.parametrize(
    ("values", "least", "number"),
    [
        ([4, 1, 3, 2], 10, 0),
        ([4, 1, 3, 2], 9.5, 0),
        ([4, 1, 3, 2], 9, 1),
        ([4, 1, 3, 2], 6, 2),
        ([4, 1, 3, 2], 3, 3),  # never too little: all but one
        ([4, 1, 3, 2], 11, 0),  # too little from the start
        ([5], 0, 0),
    ],
)
def test_tokens_leave_as_long_as_enough_is_left(values, least, number):
    leaves = dispensable(torch.tensor(values).float(), least)
    assert int(leaves.sum()) == number
    assert sorted(torch.tensor(values)[leaves].tolist()) == sorted(values)[:number]


def test_operations_are_those_of_the_release():
    assert layer_operations(5, 3, Widths(10, 20)) == 3 * 5 * 100 + 2 * 25 * 10 + 3 * 100 + 3 * 3 * 200


def test_nothing_to_save_is_reached_at_once_and_means_are_rounded_down():
    entering = [[8, 5, 5], [8, 8, 7]]
    assert recipe_of(entering, 0.0, WIDTHS) == (True, (0, 0, 0))
    assert recipe_of(entering, 0.9, WIDTHS) == (False, (1, 0, 0))


def test_tokens_stop_leaving_once_enough_is_saved():
    entering = [[8, 4, 2, 1]]
    assert recipe_of(entering, 0.3, WIDTHS) == (True, (4, 0, 0, 0))
    assert recipe_of(entering, 0.5, WIDTHS) == (True, (4, 2, 0, 0))
