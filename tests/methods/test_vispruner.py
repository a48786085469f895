"""VisPruner chooses what its released code chooses (tests/golden/vispruner), also from lists that code can't take."""

import pytest
import torch

from vico_eval.errors import ConfigError
from vico_eval.methods import registry
from vico_eval.methods.shared.cosines import cosines
from vico_eval.methods.vispruner import by_attention, even_to_odd, thinned

from .golden import Golden
from .visual import visual_tokens

GOLDEN = Golden("vispruner")


def scores_of(case):
    return GOLDEN.input(case, "attention").mean(dim=1)


@pytest.mark.parametrize(("case", "setting"), GOLDEN.settings)
def test_lists_and_their_orders_are_the_released_ones(case, setting):
    golden = GOLDEN.choice(case, setting)
    important, rest = by_attention(scores_of(case), golden["num_important"])
    similarity = cosines(GOLDEN.input(case, "features"))
    diverse = thinned(similarity, rest, golden["num_keep"] - golden["num_important"])
    assert int(golden["num_keep"] * golden["important_ratio"]) == golden["num_important"]
    assert important.tolist() == golden["important"]
    assert diverse.tolist() == golden.get("diverse", [[]])
    assert torch.cat([important, diverse], dim=1).sort(dim=1).values.tolist() == golden["kept"]


@pytest.mark.parametrize("name", [name for name in GOLDEN.values if name.endswith("first_round_similarity")])
def test_the_first_round_compares_even_places_with_odd_ones(name):
    case, _, rest_of_name = name.partition(".")
    setting = rest_of_name.removesuffix(".first_round_similarity")
    _, rest = by_attention(scores_of(case), GOLDEN.choice(case, setting)["num_important"])
    found = even_to_odd(cosines(GOLDEN.input(case, "features")), rest[:, 0::2], rest[:, 1::2])
    torch.testing.assert_close(found, GOLDEN.value(case, f"{setting}.first_round_similarity"), atol=2e-6, rtol=0)


def test_scores_are_the_released_ones():
    for case in GOLDEN.cases:
        torch.testing.assert_close(scores_of(case), GOLDEN.value(case, "score"), atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize(("num_diverse", "expected"), [(3, "cbd"), (2, "bd"), (1, "d")])
def test_rounds_by_hand(num_diverse, expected):
    similarity = torch.zeros(4, 4)
    for (one, other), value in {(0, 1): 0.9, (2, 3): 0.5, (1, 3): 0.38}.items():
        similarity[one, other] = similarity[other, one] = value
    left = thinned(similarity[None], torch.arange(4)[None], num_diverse)[0]
    assert "".join("abcd"[place] for place in left) == expected


@pytest.mark.parametrize("num_keep", range(1, 17))
@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.5, 1.0])
def test_any_number_of_tokens_can_stay_of_odd_lists_and_equal_tokens(num_keep, ratio):
    for features in (torch.ones(17, 4), torch.randn(17, 4, generator=torch.Generator().manual_seed(num_keep))):
        one = visual_tokens(features, tile=[0] * 17, scores=torch.rand(17))
        arguments = {"target_ratio": num_keep / 17, "important_ratio": ratio}
        (chosen,) = registry.build("vispruner", arguments).selection.select([one])
        assert chosen.keep.unique().tolist() == chosen.keep.tolist()
        assert len(chosen.keep) == num_keep


def test_an_impossible_share_is_refused():
    with pytest.raises(ConfigError, match=r"important_ratio=1.5; expected a share in \[0, 1\]"):
        registry.build("vispruner", {"important_ratio": 1.5})
