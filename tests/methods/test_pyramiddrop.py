"""PyramidDrop makes the choices of its released code (tests/golden/pyramiddrop), and says clearly what it can't do."""

import pytest
import torch

from vico_eval.errors import ConfigError
from vico_eval.families.internvl.config import VicoInternVLConfig
from vico_eval.families.internvl.facts import facts_of
from vico_eval.methods import registry
from vico_eval.methods.pyramiddrop import counts_for_target, kept_counts, layer_tokens, powers

from .released_decoders import Released

RELEASED = Released("pyramiddrop")
CASES = [(prompt, case) for prompt in RELEASED.prompts for case in RELEASED.meta["cases"]]


def arguments(case):
    settings = RELEASED.meta["cases"][case]
    return {"layers": "/".join(map(str, settings["layers"])), "shares": "/".join(map(str, settings["ratios"]))}


@pytest.fixture(scope="module", params=["sdpa", "eager"])
def model(request):
    return RELEASED.model(request.param)


@pytest.mark.parametrize(("prompt", "case"), CASES)
@torch.inference_mode()
def test_tokens_positions_and_logits_are_the_released_ones(model, prompt, case):
    RELEASED.use(model, arguments(case))
    RELEASED.check_prefill(model, prompt, case)


@pytest.mark.parametrize(("prompt", "case"), CASES)
@torch.inference_mode()
def test_scores_are_those_of_the_layer_to_come(model, prompt, case):
    part = RELEASED.use(model, arguments(case))
    RELEASED.prefill(model, prompt)
    seen = {state.layer: (state, asked) for state, asked in part.seen}
    visual_before = RELEASED.meta["prompts"][prompt]["visual_length"]
    for stage in RELEASED.expected[prompt][case]["stages"]:
        state, asked = seen[stage["layer"]]
        assert int(state.is_visual.sum()) == stage["visual_before"]
        visual = state.is_visual.nonzero()[:, 0]
        score = state.next_attention(torch.tensor([len(state.is_visual) - 1]))[:, 0].mean(dim=0)[visual]
        expected = RELEASED.tensors[f"{prompt}.{case}.layer{stage['layer']}.score"]
        torch.testing.assert_close(score, expected, atol=5e-5 * float(expected.max()), rtol=0)
        stays = torch.ones_like(visual, dtype=torch.bool) if asked is None else torch.isin(visual, asked.source)
        assert stays.nonzero()[:, 0].tolist() == stage["kept"]
        assert visual_before >= stage["kept_count"] == int(stays.sum())


@pytest.mark.parametrize("case", RELEASED.meta["cases"])
@pytest.mark.parametrize("beams", [1, 2])
@torch.inference_mode()
def test_prompts_of_different_lengths_share_a_batch(model, case, beams):
    RELEASED.use(model, arguments(case))
    RELEASED.check_batch(model, case, beams)


@pytest.mark.parametrize(
    ("num_visual", "shares", "counts"),
    [
        (100, (0.57, 0.29, 0.07), (56, 28, 7)),  # rounded to nearest, or in exact arithmetic: 57, 29, 7
        (2880, (0.7,), (2015,)),
        (576, (0.5, 0.25, 0.125), (288, 144, 72)),
        (1, (0.5, 0.25, 0.125), (0, 0, 0)),
    ],
)
def test_counts_are_cut_off_in_double_precision(num_visual, shares, counts):
    assert kept_counts(num_visual, shares) == counts


def test_a_share_counts_from_the_tokens_at_the_input():
    part = registry.build("pyramiddrop", {"shares": "0.5/0.5/0.25"}).decoder
    assert part.counts("task/test/0", 64, 36) == (32, 32, 16)


@pytest.mark.parametrize(
    ("num_layers", "cuts"), [(32, (8, 16, 24)), (36, (9, 18, 27)), (28, (7, 14, 21)), (24, (6, 12, 18))]
)
def test_cuts_are_the_quarters_of_the_depth(num_layers, cuts):
    part = registry.build("pyramiddrop", {}).decoder
    assert part.layers(num_layers) == {*cuts}
    counts = part.counts("task/test/0", 576, num_layers)
    assert layer_tokens(576, counts, cuts, num_layers) / num_layers == 270


@pytest.mark.parametrize(
    ("target", "factor"),
    [(0.3, 0.1673), (1 / 3, 0.2531), (0.4, 0.3894), (0.5, 0.5437), (0.6, 0.6646), (0.75, 0.8105)],
)
def test_the_factor_is_solved(target, factor):
    many = 10**7
    counts = counts_for_target(target, many, (8, 16, 24), 32)
    assert counts[0] / many == pytest.approx(factor, abs=1e-4)
    assert [counts[1] / many, counts[2] / many] == pytest.approx([*powers(factor, 3)[1:]], abs=2e-4)


@pytest.mark.parametrize("num_visual", [1, 2, 16, 208, 3328])
@pytest.mark.parametrize("target", [0.25, 0.3, 0.55, 0.99, 1.0])
def test_every_request_meets_its_target_up_to_whole_tokens(num_visual, target):
    cuts = (9, 18, 27)
    counts = counts_for_target(target, num_visual, cuts, 36)
    assert list(counts) == sorted(counts, reverse=True)
    assert layer_tokens(num_visual, counts, cuts, 36) / 36 == pytest.approx(target * num_visual, abs=0.75)


def test_targets_at_the_ends_keep_everything_and_nothing():
    assert counts_for_target(1.0, 100, (1, 2, 3), 4) == (100, 100, 100)
    assert counts_for_target(0.25, 100, (1, 2, 3), 4) == (0, 0, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layers": "0/8"}, "layers='0/8'; expected layers from 1 on"),
        ({"layers": "8/8"}, "layers='8/8'; expected increasing integers"),
        ({"layers": "8/4"}, "layers='8/4'; expected increasing integers"),
        ({"layers": "2.5/4"}, "layers='2.5/4'; expected increasing integers"),
        ({"layers": "all"}, "layers='all'; expected numbers"),
        ({"shares": "0.5/0.6/0.1"}, "shares='0.5/0.6/0.1'; expected shares .* that don't rise"),
        ({"shares": "1.5/0.5/0.1"}, r"shares='1.5/0.5/0.1'; expected shares of all visual tokens in \[0, 1\]"),
        ({"shares": 0.5}, "1 shares for 3 layers"),
        ({"layers": "2/4", "shares": "0.5/0.2/0.1"}, "3 shares for 2 layers"),
        ({"shares": "0.5/0.25/0.125", "target_ratio": 0.5}, "shares or target_ratio, not both"),
        ({"target_ratio": 0.0}, "target_ratio=0.0"),
    ],
)
def test_impossible_values_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        registry.build("pyramiddrop", arguments)


@pytest.mark.parametrize(
    ("num_layers", "arguments", "message"),
    [
        (24, {"layers": 24, "shares": 0.5}, "before layers 24, .*has 24 layers; expected distinct layers from 1 to 23"),
        (2, {}, "before layers 0/1/2, .*has 2 layers"),
        (24, {"target_ratio": 0.2}, "can't reach target_ratio=0.2: 6 of 24 layers.*at least 0.250. Expected"),
        (24, {"layers": "12/18", "target_ratio": 0.4}, "can't reach target_ratio=0.4: 12 of 24 layers"),
    ],
)
def test_what_the_decoder_is_too_shallow_for_is_refused_before_loading(num_layers, arguments, message):
    config = VicoInternVLConfig()
    config.text_config.num_hidden_layers = num_layers
    with pytest.raises(ConfigError, match=message):
        registry.build("pyramiddrop", arguments).decoder.check(facts_of(config, "some checkpoint"))
