"""The two controls of selection, on tokens few enough to check by hand."""

import pytest
import torch

from vico_eval.errors import CheckpointError, ConfigError
from vico_eval.families.internvl.config import VicoInternVLConfig
from vico_eval.families.internvl.facts import facts_of
from vico_eval.methods import registry
from vico_eval.methods.interface import ModelFacts, VisualTokens
from vico_eval.methods.shared.budgets import num_keep

FACTS = facts_of(VicoInternVLConfig(), "base")


def tokens(scores, tile, key="docvqa/test/7"):
    tile = torch.tensor(tile)
    return VisualTokens(
        key=key,
        tokens=torch.zeros(len(tile), 1),
        image=torch.zeros(len(tile), dtype=torch.int64),
        tile=tile,
        grid_yx=torch.zeros(len(tile), 2),
        scores=None if scores is None else torch.tensor(scores),
    )


def kept(method, arguments, *requests):
    part = registry.build(method, arguments).selection
    return [None if one is None else one.keep.tolist() for one in part.select(requests)]


@pytest.mark.parametrize(
    ("count", "ratio", "expected"),
    [(256, 0.1, 26), (256, 0.25, 64), (64, 0.1, 6), (5, 0.5, 2), (3, 0.5, 2), (16, 0.001, 1), (1, 1.0, 1)],
)
def test_a_budget_is_a_share_to_the_nearest_and_at_least_one(count, ratio, expected):
    assert num_keep(count, ratio) == expected


def test_every_tile_keeps_its_own_highest_scores_in_order():
    # Half of a tile of 4 is 2, half of one of 2 is 1; the second tile's scores do not compete with the first's.
    one = tokens([0.1, 0.9, 0.5, 0.3, 0.01, 0.02], [0, 0, 0, 0, 1, 1])
    assert kept("top_attention", {}, one) == [[1, 2, 5]]


def test_of_equal_scores_the_earlier_token_stays():
    assert kept("top_attention", {}, tokens([0.5, 0.5, 0.5, 0.5], [0] * 4)) == [[0, 1]]


def test_without_tiles_an_image_is_a_group():
    one = tokens([0.1, 0.9, 0.5, 0.3], [-1] * 4)
    assert kept("top_attention", {"keep_ratio": 0.25}, one) == [[1]]


def test_random_tokens_depend_on_the_document_and_the_seed_alone():
    first, other = tokens(None, [0] * 16), tokens(None, [0] * 16, key="docvqa/test/8")
    together = kept("random_tokens", {}, first, other)
    assert kept("random_tokens", {}, other) == together[1:]
    assert together[0] != together[1]
    assert kept("random_tokens", {"seed": 1}, first) != together[:1]
    assert [len(one) for one in together] == [8, 8]


def test_random_tokens_are_drawn_evenly():
    draws = [kept("random_tokens", {"keep_ratio": 0.25}, tokens(None, [0] * 8, key=str(n)))[0] for n in range(2000)]
    share = torch.bincount(torch.tensor(draws).flatten(), minlength=8) / len(draws)
    # standard error of each: sqrt(.25 * .75 / 2000) = 0.0097
    assert share.tolist() == pytest.approx([0.25] * 8, abs=0.04)


def test_keeping_all_hands_the_tokens_on():
    assert kept("top_attention", {"keep_ratio": 1.0}, tokens([0.1, 0.2], [0, 0])) == [None]


@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        ("random_tokens", {"keep_ratio": 0.0}, r"keep_ratio=0.0; expected the share that stays, in \(0, 1\]"),
        ("top_attention", {"keep_ratio": 1.5}, "keep_ratio=1.5"),
        ("top_attention", {"score_source": "all"}, "score_source='all'; expected cls or mean"),
        ("top_attention+random_tokens", {}, "two parts in the selection"),
        ("random_tokens+lvtc", {}, "needs every tile with all its visual tokens, and its part in the selection"),
    ],
)
def test_what_makes_no_sense_is_refused(method, arguments, message):
    with pytest.raises(ConfigError, match=message):
        registry.build(method, arguments)


def test_a_layer_that_the_encoder_lacks_is_named_before_weights_are_read():
    built = registry.build("top_attention", {"score_layer": 24})
    with pytest.raises(ConfigError, match="score_layer=24, and the vision encoder of 'base' has 24 layers; expected"):
        built.check(FACTS)
    registry.build("top_attention", {"score_layer": -24}).check(FACTS)


def test_a_family_that_lacks_what_a_method_needs_says_so():
    facts = ModelFacts(checkpoint="siglip", family="other", num_layers=4, num_heads=4)
    with pytest.raises(CheckpointError, match=r"'top_attention' needs encoder_attention, which other \('siglip'\)"):
        registry.build("top_attention").check(facts)
    registry.build("random_tokens").check(facts)


@pytest.mark.parametrize("method", ["downsample", "pool", "all_compress", "single_tile+random_tokens"])
def test_a_family_without_tiles_has_none_to_cut_or_route(method):
    facts = ModelFacts(checkpoint="whole", family="other", num_layers=4, num_heads=4)
    with pytest.raises(CheckpointError, match=r"acts on tiles, and checkpoint 'whole' \(other\) does not cut images"):
        registry.build(method).check(facts)
