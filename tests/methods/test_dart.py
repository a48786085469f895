"""DART makes the choices of its released code (tests/golden/dart), and says clearly what it can't do."""

import pytest
import torch

from vico_eval.errors import ConfigError
from vico_eval.families.internvl.config import VicoInternVLConfig
from vico_eval.families.internvl.facts import facts_of
from vico_eval.methods import registry
from vico_eval.methods.dart import (
    exact_picks,
    in_turn,
    picked_tokens,
    pivot_cosines,
    released_picks,
    strongest,
)
from vico_eval.methods.interface import LayerState

from .released_decoders import Released

RELEASED = Released("dart")
CASES = [(prompt, case) for prompt in RELEASED.prompts for case in RELEASED.meta["cases"]]


def arguments(prompt, case):
    """What reproduces a case; a released number of tokens is a share of the prompt's."""
    settings = RELEASED.meta["cases"][case]
    pivots = {"image_pivots": settings["pivot_image_token"], "text_pivots": settings["pivot_text_token"]}
    num_visual = RELEASED.meta["prompts"][prompt]["visual_length"]
    keep_ratio = 1 - settings["reduction_ratio"]
    if settings["max_num_trunction"] is not None:
        number = settings.get("retain_token_num_for_llava_next", settings["max_num_trunction"])
        keep_ratio = (number + 0.5) / num_visual
    return {"layer": settings["K"], "keep_ratio": keep_ratio, **pivots}


@pytest.fixture(scope="module", params=["sdpa", "eager"])
def model(request):
    return RELEASED.model(request.param)


@pytest.mark.parametrize(("prompt", "case"), CASES)
@torch.inference_mode()
def test_tokens_positions_and_logits_are_the_released_ones(model, prompt, case):
    RELEASED.use(model, arguments(prompt, case))
    RELEASED.check_prefill(model, prompt, case)


@pytest.mark.parametrize(("prompt", "case"), CASES)
@torch.inference_mode()
def test_pivots_norms_cosines_and_picks_are_the_released_ones(model, prompt, case):
    golden, settings = RELEASED.expected[prompt][case], arguments(prompt, case)
    part = RELEASED.use(model, settings)
    RELEASED.prefill(model, prompt)
    ((state, _),) = part.seen
    start, num_visual = (RELEASED.meta["prompts"][prompt][name] for name in ("visual_start", "visual_length"))
    norms = state.previous_keys.abs().sum(dim=(0, 2))
    visual = slice(start, start + num_visual)
    for kind, tokens in (("image", visual), ("text", slice(visual.stop, None))):
        # The release repeats the keys for both query heads of a group.
        expected = RELEASED.tensors[f"{prompt}.{case}.{kind}_key_norm"]
        torch.testing.assert_close(2 * norms[tokens], expected, rtol=2e-5, atol=0)
    image, text = strongest(norms, state.is_visual, settings["image_pivots"], settings["text_pivots"])
    assert [place - start for place in image] == golden["image_pivots"]
    assert text == golden["text_pivots"]
    pivots = in_turn(image, text, "set")
    assert pivots == golden["pivots_in_order"]
    cosines = pivot_cosines(state.final_norm(state.hidden), pivots)
    expected = -RELEASED.tensors[f"{prompt}.{case}.negative_cosine"]
    was_candidate = expected != -2
    torch.testing.assert_close(cosines[:, visual][was_candidate], expected[was_candidate], atol=1e-5, rtol=0)
    picks = released_picks(num_visual, settings["keep_ratio"], len(pivots))
    assert picks == [golden["picked_per_pivot"]] * len(pivots)
    pool = state.is_visual.clone()
    pool[image] = False
    picked = [(tokens - start).tolist() for tokens in picked_tokens(cosines, pool, picks)]
    assert picked == golden["picked"]


@pytest.mark.parametrize("case", [case for case in RELEASED.meta["cases"] if case.startswith(("ratio", "K"))])
@pytest.mark.parametrize("beams", [1, 2])
@torch.inference_mode()
def test_padding_counts_for_no_place_and_prompts_share_a_batch(model, case, beams):
    RELEASED.use(model, arguments("a", case))
    RELEASED.check_batch(model, case, beams)


@torch.inference_mode()
def test_where_pivots_pick_everything_the_logits_are_the_plain_ones(model):
    RELEASED.use(model, arguments("c", "count56"))
    logits, _ = RELEASED.prefill(model, "c")
    model.model = model.model.base
    assert torch.equal(logits, model(inputs_embeds=RELEASED.prompt("c")[0]).logits[0])


def test_the_order_of_the_set_depends_on_what_stands_before_the_image_and_the_other_does_not():
    image, text = [12, 40, 77, 20], [133, 135, 138, 134]
    moved = [[place + 16 for place in places] for places in (image, text)]
    assert [place - 16 for place in in_turn(*moved, "set")] != in_turn(image, text, "set")
    assert [place - 16 for place in in_turn(*moved, "norm")] == in_turn(image, text, "norm") == [*image, *text]


def test_the_order_of_the_set_is_no_sorted_one():
    # In a table of 32 slots, 96, 64 and 40, 8, 72 want the same ones, and go on to the next free ones.
    assert in_turn([40, 8, 72], [33, 96, 64], "set") == [96, 33, 64, 40, 8, 72]


def test_text_before_the_image_or_between_images_is_no_pivot():
    norms = torch.tensor([9.0, 1.0, 2.0, 9.0, 3.0, 1.0, 2.0, 2.0])
    is_visual = torch.tensor([0, 1, 1, 0, 1, 0, 0, 0]).bool()
    assert strongest(norms, is_visual, 2, 2) == ([4, 2], [6, 7])
    assert strongest(norms, is_visual, 10, 10) == ([4, 2, 1], [6, 7, 5])


def test_of_equal_cosines_the_earlier_token_is_picked_and_none_twice():
    cosines = torch.tensor([[0.0, 0.5, 0.1, 0.1, 0.1], [0.0, 0.5, 0.1, 0.0, 0.1], [0.0] * 5])
    pool = torch.tensor([0, 1, 1, 1, 1]).bool()
    picked = picked_tokens(cosines, pool, [2, 1, 5])
    assert [tokens.tolist() for tokens in picked] == [[2, 3], [4], [1]]


def test_the_released_numbers():
    default = registry.build("dart", {}).decoder
    assert released_picks(576, 128 / 576, 8) == [16] * 8  # 132 with the image pivots
    assert released_picks(576, 1 - 0.778, 8) == [15] * 8
    assert default.layers(32) == {2}


@pytest.mark.parametrize("num_visual", [1, 2, 5, 16, 208, 3328])
@pytest.mark.parametrize("target", [0.07, 0.3, 0.55, 0.99, 1.0])
@pytest.mark.parametrize("pivots", [(4, 4), (0, 3), (10, 5)])
def test_every_request_meets_its_target_exactly(num_visual, target, pivots):
    arguments = {"target_ratio": target, "image_pivots": pivots[0], "text_pivots": pivots[1]}
    part = registry.build("dart", arguments).decoder
    generator = torch.Generator().manual_seed(num_visual)
    state = FakeState(num_visual, generator)
    asked = part.next_tokens(state)
    kept = num_visual if asked is None else int(state.is_visual[asked.source].sum())
    assert kept == round(num_visual * (target * 36 - 2) / 34)
    assert (2 * num_visual + 34 * kept) / 36 == pytest.approx(target * num_visual, abs=0.5)
    assert asked is None or bool(torch.isin((~state.is_visual).nonzero()[:, 0], asked.source).all())


@pytest.mark.parametrize("num_visual", [1, 3, 4])
def test_where_all_visual_tokens_are_pivots_all_stay(num_visual):
    state = FakeState(num_visual, torch.Generator().manual_seed(0))
    asked = registry.build("dart", {"keep_ratio": 0.0}).decoder.next_tokens(state)
    assert asked.source.tolist() == list(range(len(state.is_visual)))


@pytest.mark.parametrize("num_behind", [0, 1, 2])
def test_fewer_text_tokens_than_pivots_are_enough(num_behind):
    state = FakeState(40, torch.Generator().manual_seed(0), num_behind)
    asked = registry.build("dart", {"keep_ratio": 0.5}).decoder.next_tokens(state)
    pivots = 4 + num_behind
    assert int(state.is_visual[asked.source].sum()) == 4 + 20 // pivots * pivots
    without = registry.build("dart", {"image_pivots": 0}).decoder.next_tokens(state)
    assert (without is None) == (num_behind == 0)


class FakeState:
    """What DART looks at, of random tokens: three of text, the visual ones, and more text."""

    key, layer, num_layers = "task/test/0", 2, 36

    def __init__(self, num_visual, generator, num_behind=6):
        self.is_visual = torch.tensor([False] * 3 + [True] * num_visual + [False] * num_behind)
        self.hidden = torch.randn(len(self.is_visual), 16, generator=generator)
        self.previous_keys = torch.randn(2, len(self.is_visual), 8, generator=generator)

    def final_norm(self, hidden):
        return hidden

    check_finite = LayerState.check_finite


def test_neither_the_length_of_keys_nor_that_of_a_hidden_state_matters():
    part = registry.build("dart", {}).decoder
    state = FakeState(60, torch.Generator().manual_seed(0))
    expected = part.next_tokens(state).source
    state.previous_keys = state.previous_keys * 7
    state.hidden[10] *= 3
    assert torch.equal(part.next_tokens(state).source, expected)


@pytest.mark.parametrize(("name", "what"), [("previous_keys", "key norms"), ("hidden", "cosines")])
def test_tokens_are_not_chosen_by_numbers_that_are_nan(name, what):
    state = FakeState(60, torch.Generator().manual_seed(0))
    getattr(state, name)[..., 7, 0] = float("nan")
    with pytest.raises(FloatingPointError, match=f"the {what} of task/test/0 before layer 2 is NaN"):
        registry.build("dart", {}).decoder.next_tokens(state)


def test_exact_picks_are_the_releases_where_they_come_out_even():
    assert exact_picks(24, 8) == [3] * 8
    assert exact_picks(26, 8) == [4, 4, *[3] * 6]
    assert exact_picks(-2, 8) == [0] * 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layer": 0}, "layer=0; expected at least 1"),
        ({"keep_ratio": 1.5}, r"keep_ratio=1.5; expected .* in \[0, 1\], which is 1 - reduction"),
        ({"keep_ratio": 0.5, "target_ratio": 0.5}, "keep_ratio or target_ratio, not both"),
        ({"image_pivots": 0, "text_pivots": 0}, "image_pivots=0 and text_pivots=0; expected at least one"),
        ({"image_pivots": -1}, "image_pivots=-1"),
        ({"pivot_order": "sorted"}, "pivot_order='sorted'; expected set or norm"),
    ],
)
def test_impossible_values_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        registry.build("dart", arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layer": 24}, "layer=24.*has 24 layers.*Expected 1 to 23"),
        (
            {"layer": 12, "target_ratio": 0.5},
            "can't reach target_ratio=0.5: 12 of 24 layers.*above 0.500",
        ),
    ],
)
def test_what_the_decoder_is_too_shallow_for_is_refused_before_loading(arguments, message):
    config = VicoInternVLConfig()
    config.text_config.num_hidden_layers = 24
    with pytest.raises(ConfigError, match=message):
        registry.build("dart", arguments).decoder.check(facts_of(config, "some checkpoint"))
