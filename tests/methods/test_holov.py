"""HoloV chooses what its released code chooses (tests/golden/holov), and tokens where that code appends zeros."""

import pytest
import torch

from vico_eval.errors import ConfigError
from vico_eval.methods import registry
from vico_eval.methods.holov import chunk_scores, filled, granted, quotas, squares, stretches

from .golden import Golden
from .visual import visual_tokens

GOLDEN = Golden("holov")


def scored(case, num_chunks):
    scores = GOLDEN.input(case, "score")
    chunk = stretches(scores.shape[1], num_chunks).expand(len(scores), -1)
    return scores, chunk, chunk_scores(GOLDEN.input(case, "features"), scores, chunk, num_chunks)


def sizes_of(chunk, num_chunks):
    return torch.nn.functional.one_hot(chunk, num_chunks).sum(dim=1)


@pytest.mark.parametrize(("case", "setting"), GOLDEN.settings)
def test_the_choice_is_the_released_one_and_contains_it_where_zeros_were_appended(case, setting):
    golden = GOLDEN.choice(case, setting)
    num_chunks, num_keep = golden["num_chunks"], golden["num_keep"]
    scores, chunk, found = scored(case, num_chunks)
    assert granted(found.weights, num_keep).tolist() == golden["allocated"]
    quota = quotas(found.weights, sizes_of(chunk, num_chunks), num_keep)
    chosen = filled(scores, chunk, quota).sort(dim=1).values.tolist()
    zeros = golden["zero_tokens"] if case.startswith("tiles") else [golden["zero_tokens"]]
    for of_tile, kept, missing in zip(chosen, golden["kept"], zeros, strict=True):
        assert len(set(of_tile)) == len(of_tile) == num_keep
        assert set(kept) <= set(of_tile)
        assert len(kept) + missing == num_keep


@pytest.mark.parametrize(("case", "setting"), GOLDEN.settings)
def test_scores_and_weights_are_the_released_ones(case, setting):
    num_chunks = GOLDEN.choice(case, setting)["num_chunks"]
    _, chunk, found = scored(case, num_chunks)
    torch.testing.assert_close(found.weights, GOLDEN.value(case, f"{setting}.weight"), atol=1e-6, rtol=0)
    torch.testing.assert_close(found.of_chunks, GOLDEN.value(case, f"{setting}.chunk_score"), rtol=5e-6, atol=0)
    if f"{case}.{setting}.last_chunk_variance" in GOLDEN.values:
        last = chunk[0] == num_chunks - 1
        variance = GOLDEN.value(case, f"{setting}.last_chunk_variance")
        torch.testing.assert_close(found.variance[:, last], variance, rtol=1e-5, atol=0)
        of_tokens = GOLDEN.value(case, f"{setting}.last_chunk_token_score")
        torch.testing.assert_close(found.of_tokens[:, last], of_tokens, rtol=5e-6, atol=0)


@pytest.mark.parametrize(("num_keep", "expected"), [(4, [1, 2, 4, 5]), (7, [0, 1, 2, 3, 4, 5, 7])])
def test_eight_tokens_by_hand(num_keep, expected):
    attention = torch.tensor([0.10, 0.12, 0.2, 0.0, 0.3, 0.1, 0.05, 0.13])
    one = visual_tokens(torch.ones(8, 4), tile=[0] * 8, scores=attention)
    (chosen,) = registry.build("holov", {"num_chunks": 4, "target_ratio": num_keep / 8}).selection.select([one])
    assert chosen.keep.tolist() == expected


@pytest.mark.parametrize("num_keep", range(1, 16))
@pytest.mark.parametrize("arguments", [{}, {"num_chunks": 4}, {"num_chunks": 4, "chunks": "squares"}])
def test_any_number_of_tokens_can_stay_whatever_the_attention(num_keep, arguments):
    torch.manual_seed(num_keep)
    peak = torch.zeros(16)
    peak[5] = 1.0
    for attention in (torch.rand(16), torch.zeros(16), torch.ones(16), peak):
        one = visual_tokens(torch.randn(16, 4), tile=[0] * 16, scores=attention)
        part = registry.build("holov", {**arguments, "target_ratio": num_keep / 16}).selection
        (chosen,) = part.select([one])
        assert len(chosen.keep.unique()) == len(chosen.keep) == num_keep


def test_stretches_are_rows_of_a_tile_and_squares_are_squares():
    assert stretches(256, 16).tolist() == [token // 16 for token in range(256)]
    assert stretches(7, 3).tolist() == [0, 0, 0, 1, 1, 2, 2]
    grid = visual_tokens(torch.zeros(16, 1), tile=[0] * 16).grid_yx[None]
    expected = [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]
    assert squares(grid, 2).view(4, 4).tolist() == expected
    # A tile of a quarter of the tokens lies on the same grid, and another tile of the image further right.
    assert squares(grid * 2 + 0.5, 2).view(4, 4).tolist() == expected
    assert squares(grid + torch.tensor([0.0, 4.0]), 2).view(4, 4).tolist() == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_chunks": 0}, "num_chunks=0; expected at least 1"),
        ({"chunks": "crops"}, "chunks='crops'; expected rows or squares"),
        ({"chunks": "squares", "num_chunks": 12}, "num_chunks=12 squares; expected a square number"),
        ({"score_source": "logits"}, "score_source='logits'; expected cls or mean"),
    ],
)
def test_impossible_values_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        registry.build("holov", arguments)
