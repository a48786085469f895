"""DivPrune chooses what its released code chooses (tests/golden/divprune), and tokens that code can't choose from."""

import pytest
import torch

from vico_eval.errors import ConfigError
from vico_eval.methods import registry
from vico_eval.methods.divprune import distances, farthest_first
from vico_eval.methods.shared.budgets import num_keep

from .golden import Golden
from .visual import visual_tokens

GOLDEN = Golden("divprune")


def order_of(features, budget):
    return farthest_first(distances(features[None]), budget)[0].tolist()


@pytest.mark.parametrize("case", GOLDEN.cases)
def test_the_order_is_the_released_one(case):
    golden, features = GOLDEN.cases[case], GOLDEN.inputs[f"{case}.features"]
    order = order_of(features, len(golden["order"]))
    assert order == golden["order"]
    for budget, kept in golden["kept"].items():
        assert sorted(order_of(features, int(budget))) == kept


@pytest.mark.parametrize("case", GOLDEN.cases)
def test_distances_are_the_released_ones(case):
    between = distances(GOLDEN.inputs[f"{case}.features"][None])[0]
    order = GOLDEN.cases[case]["order"]
    nearest = between.min(dim=0).values
    torch.testing.assert_close(nearest, GOLDEN.values[f"{case}.nearest_distance"], atol=2e-6, rtol=0)
    at_pick = [nearest[order[0]], *(between[one, order[:place]].min() for place, one in enumerate(order) if place)]
    expected = GOLDEN.values[f"{case}.distance_at_pick"]
    torch.testing.assert_close(torch.stack(at_pick), expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize("entry", GOLDEN.choices["counts"])
def test_counts_are_the_released_ones_and_at_least_one(entry):
    assert num_keep(entry["n"], entry["keep_ratio"]) == max(1, entry["num_keep"])


def test_five_directions_by_hand():
    angles = torch.tensor([0.0, 10.0, 20.0, 90.0, 200.0]).deg2rad()
    assert order_of(torch.stack([angles.cos(), angles.sin()], dim=1), 5) == [4, 2, 3, 0, 1]


def test_equal_tokens_are_as_many_distinct_ones_the_earlier_first():
    assert order_of(torch.ones(6, 3), 4) == [0, 1, 2, 3]
    assert sorted(order_of(torch.randn(6, 8).repeat(2, 1), 12)) == list(range(12))
    assert order_of(torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]]), 2) == [0, 1]  # of no direction at all


def test_a_longer_token_points_the_same_way():
    features = torch.randn(40, 16, generator=torch.Generator().manual_seed(1))
    longer = features * torch.rand(40, 1, generator=torch.Generator().manual_seed(2)).add(0.1)
    assert order_of(features, 20) == order_of(longer, 20)


def kept(arguments, *requests):
    return [
        one if one is None else one.keep.tolist()
        for one in registry.build("divprune", arguments).selection.select(requests)
    ]


def test_all_tiles_of_an_image_compete_and_images_do_not():
    alike, unlike = torch.ones(4, 8), torch.eye(8)[:4]
    one = visual_tokens(torch.cat([alike, unlike]), image=[0] * 8, tile=[0] * 4 + [1] * 4)
    assert kept({"keep_ratio": 0.5}, one) == [[4, 5, 6, 7]]
    (by_tile,) = kept({"keep_ratio": 0.5, "group": "tile"}, one)
    assert [token // 4 for token in by_tile] == [0, 0, 1, 1]
    two = visual_tokens(torch.cat([alike, unlike]), image=[0] * 4 + [1] * 4, tile=[0] * 4 + [1] * 4)
    assert kept({"keep_ratio": 0.5}, two) == [by_tile]


def test_a_request_is_chosen_from_as_if_alone():
    torch.manual_seed(0)
    requests = [visual_tokens(torch.randn(12, 16), tile=[0] * 12, key=f"docvqa/test/{number}") for number in range(4)]
    together = kept({"keep_ratio": 0.4}, *requests)
    assert together == [kept({"keep_ratio": 0.4}, one)[0] for one in requests]
    assert all(len(one) == 5 for one in together)


def test_an_unknown_group_is_refused():
    with pytest.raises(ConfigError, match="group='request'; expected image or tile"):
        registry.build("divprune", {"group": "request"})
