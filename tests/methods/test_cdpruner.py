"""CDPruner chooses what its released code chooses (tests/golden/cdpruner), and beyond the rank of the tokens too."""

import pytest
import torch

from vico_eval.errors import ConfigError
from vico_eval.methods import registry
from vico_eval.methods.cdpruner import closeness, min_max, most_determinant
from vico_eval.methods.shared.cosines import cosines

from .golden import Golden
from .visual import visual_tokens

GOLDEN = Golden("cdpruner")


def relevance_of(case):
    """As released, with CLIP's negative sign: over all tiles of the call."""
    images, words = GOLDEN.input(case, "image_embeds"), GOLDEN.inputs[f"{case}.text_embeds"]
    return min_max(-closeness(images.flatten(0, 1), words)).view(images.shape[:2])


def kernel_of(case, relevance, dtype):
    similarity = cosines(GOLDEN.input(case, "features")).to(dtype)
    return relevance.to(dtype)[:, :, None] * similarity * relevance.to(dtype)[:, None]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", GOLDEN.cases)
def test_the_order_and_its_gains_are_the_released_ones(case, dtype):
    golden, relevance = GOLDEN.cases[case], relevance_of(case)
    order = torch.tensor(golden["order"]).view(len(relevance), -1)
    found = most_determinant(kernel_of(case, relevance, dtype), relevance, order.shape[1])
    assert torch.equal(found.order, order)
    torch.testing.assert_close(found.gains.float(), GOLDEN.value(case, "gain_at_pick"), rtol=3e-4, atol=0)
    for budget, kept in golden["kept"].items():
        chosen = most_determinant(kernel_of(case, relevance, dtype), relevance, int(budget)).order.sort(dim=1).values
        assert torch.equal(chosen, torch.tensor(kept).view(len(relevance), -1))


@pytest.mark.parametrize("case", GOLDEN.cases)
def test_relevance_is_the_released_one(case):
    torch.testing.assert_close(relevance_of(case), GOLDEN.value(case, "relevance"), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("relevance", "expected"), [((1.0, 1.0, 1.0, 1.0), [0, 1, 2, 3]), ((0.5, 1.0, 0.9, 0.2), [1, 2, 0, 3])]
)
def test_four_tokens_of_rank_two_by_hand(relevance, expected):
    rows = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [-1.0, 0.0]])
    weight = torch.tensor(relevance)
    kernel = weight[:, None] * cosines(rows) * weight
    assert most_determinant(kernel[None], weight[None], 4).order[0].tolist() == expected


def part(**arguments):
    return registry.build("cdpruner", arguments).selection


def kept(visual, **arguments):
    (chosen,) = part(**arguments).select([visual])
    return chosen.keep.tolist()


@pytest.mark.parametrize("num_keep", [1, 4, 5, 20, 39])
def test_beyond_the_rank_of_the_tokens_the_most_relevant_fill_up(num_keep):
    torch.manual_seed(0)
    tokens, words = torch.randn(40, 4), torch.randn(3, 4)
    one = visual_tokens(tokens, tile=[0] * 40, question_embeddings=words)
    chosen = kept(one, target_ratio=num_keep / 40)
    assert len(set(chosen)) == len(chosen) == num_keep
    if num_keep > 4:
        by_relevance = closeness(tokens, words).sort(descending=True).indices.tolist()
        spanning = kept(one, target_ratio=4 / 40)
        filling = [token for token in by_relevance if token not in spanning]
        assert set(chosen) == {*spanning, *filling[: num_keep - 4]}


def test_a_tokens_length_does_not_count_and_zeros_and_equal_ones_are_no_trap():
    torch.manual_seed(0)
    tokens, words = torch.randn(16, 32), torch.randn(2, 32)
    given = {"tile": [0] * 16, "question_embeddings": words}
    assert kept(visual_tokens(tokens, **given)) == kept(visual_tokens(tokens * torch.rand(16, 1).add(0.1), **given))
    assert kept(visual_tokens(torch.ones(16, 32), **given)) == list(range(8))
    tokens[3] = 0
    assert len(kept(visual_tokens(tokens, **given), keep_ratio=0.9)) == 14


def test_without_words_every_token_is_as_relevant():
    torch.manual_seed(0)
    tokens = torch.randn(16, 32)
    without = kept(visual_tokens(tokens, tile=[0] * 16), relevance="none")
    assert kept(visual_tokens(tokens, tile=[0] * 16, question_embeddings=torch.zeros(0, 32))) == without
    alike = visual_tokens(tokens, tile=[0] * 16, question_embeddings=torch.zeros(2, 32))
    assert kept(alike) == without


@pytest.mark.parametrize("seed", range(8))
def test_without_relevance_the_first_token_is_chosen_first_and_not_one_that_rounding_favours(seed):
    tokens = torch.randn(16, 48, generator=torch.Generator().manual_seed(seed))
    assert kept(visual_tokens(tokens, tile=[0] * 16), relevance="none", keep_ratio=1 / 16) == [0]


def test_relevance_has_the_papers_sign_and_spans_the_request():
    # Every token is new, so that relevance alone decides; the second tile is the closer one throughout.
    tokens = torch.eye(8)
    words = torch.tensor([[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]])
    one = visual_tokens(tokens, tile=[0] * 4 + [1] * 4, question_embeddings=words)
    assert kept(one, keep_ratio=0.5) == [2, 3, 6, 7]
    weights = part()._weights(one)
    assert float(weights[4:].min()) > float(weights[:4].max())
    torch.testing.assert_close(part(kernel="exp")._weights(one), (0.5 * weights).exp())


def test_only_a_part_that_reads_the_question_asks_for_it():
    assert part().needs == {"question"}
    assert part(relevance="none").needs == set()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"relevance": "clip"}, "relevance='clip'; expected decoder or none"),
        ({"kernel": "root"}, "kernel='root'; expected product or exp"),
        ({"kernel": "exp", "relevance": "none"}, "relevance=none and kernel=exp; the kernel only sets how"),
    ],
)
def test_unknown_values_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        registry.build("cdpruner", arguments)
