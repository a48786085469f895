"""VisionZip keeps and merges what its released code does (tests/golden/visionzip)."""

import pytest
import torch
from transformers import CLIPVisionConfig
from transformers.models.clip.modeling_clip import CLIPAttention

from vico_eval.errors import ConfigError
from vico_eval.families.encoder_attention import LayerInput
from vico_eval.methods import registry
from vico_eval.methods.visionzip import choose, merging, num_contextual

from .golden import Golden
from .visual import visual_tokens

GOLDEN = Golden("visionzip")


def scores_of(case):
    return GOLDEN.input(case, "attention").sum(dim=1)


def chosen_of(case, golden):
    counts = golden["num_dominant"], golden["num_contextual"]
    return choose(scores_of(case), GOLDEN.input(case, "key")[:, 1:], *counts)


@pytest.mark.parametrize(("case", "setting"), GOLDEN.settings)
def test_choices_are_the_released_ones(case, setting):
    golden = GOLDEN.choice(case, setting)
    chosen = chosen_of(case, golden)
    assert chosen.dominant.tolist() == golden["dominant"]
    assert chosen.targets.tolist() == golden["targets"]
    joined = torch.full(scores_of(case).shape, -1).scatter(1, chosen.others, chosen.joins)
    assert joined.scatter(1, chosen.targets, -1).tolist() == golden["merged_into"]


@pytest.mark.parametrize(("case", "setting"), GOLDEN.settings)
def test_tokens_are_the_released_ones(case, setting):
    golden, features = GOLDEN.choice(case, setting), GOLDEN.input(case, "features")[:, 1:]
    chosen = chosen_of(case, golden)
    dominant = features.gather(1, chosen.dominant[..., None].expand(-1, -1, features.shape[2]))
    tokens = torch.cat([dominant, merging(chosen, features.shape[1]) @ features], dim=1)
    # The released order has the class token first.
    torch.testing.assert_close(tokens, GOLDEN.value(case, f"{setting}.tokens")[:, 1:], atol=2e-5, rtol=0)


def test_scores_are_the_released_ones():
    for case in GOLDEN.cases:
        torch.testing.assert_close(scores_of(case), GOLDEN.value(case, "score"), rtol=1e-6, atol=0)


@torch.inference_mode()
def test_attention_and_keys_come_from_the_layer_as_released():
    inputs = {name.removeprefix("attn."): tensor for name, tensor in GOLDEN.inputs.items() if name.startswith("attn.")}
    config = CLIPVisionConfig(hidden_size=32, num_attention_heads=4)
    config._attn_implementation = "sdpa"
    attention = CLIPAttention(config).eval()
    for name in "qkv":
        projection = getattr(attention, f"{name}_proj")
        projection.weight.copy_(inputs[f"{name}_weight"])
        projection.bias.copy_(inputs[f"{name}_bias"])
    watch = LayerInput(attention, rows="cls", has_class_token=True)
    with watch.watching():
        attention(inputs["hidden_states"][None])
    found = watch.taken()
    expected = GOLDEN.values["attn.cls_attention"].mean(dim=0)
    torch.testing.assert_close(found.scores[0], expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(found.keys[0], GOLDEN.values["attn.key"][1:], atol=5e-6, rtol=0)


@pytest.mark.parametrize(
    ("num_keep", "expected"), [(1, 0), (2, 1), (6, 1), (26, 4), (64, 10), (128, 20), (192, 30), (256, 40)]
)
def test_ten_of_sixty_four_are_merged(num_keep, expected):
    assert num_contextual(num_keep) == expected


def by_hand(**values):
    axes, root = torch.eye(2), 0.5**0.5
    keys = torch.stack([axes[0], axes[0], axes[0], axes[1], axes[0], axes[1], torch.tensor([root, root]), -axes[0]])
    number = torch.arange(8.0)
    features = torch.stack([2 * number, 2 * number + 1], dim=1)
    return visual_tokens(features, tile=[0] * 8, scores=8 - number, keys=keys, **values)


def test_eight_tokens_by_hand():
    one = by_hand()
    chosen = choose(one.scores[None], one.keys[None], 2, 2)
    rows = merging(chosen, 8)[0] @ one.tokens
    assert chosen.dominant.tolist() == [[0, 1]]
    assert chosen.targets.tolist() == [[2, 5]]
    assert rows.tolist() == [[14, 16], [20, 22]]


def test_merged_tokens_stand_where_their_targets_did():
    torch.manual_seed(0)
    tokens = torch.randn(16, 4)
    one = visual_tokens(tokens, tile=[0] * 16, scores=torch.rand(16), keys=torch.randn(16, 3))
    (selected,) = registry.build("visionzip", {"merge_at": "decoder"}).selection.select([one])
    chosen = choose(one.scores[None], one.keys[None], 7, 1)
    assert selected.keep.tolist() == sorted([*chosen.dominant[0].tolist(), *chosen.targets[0].tolist()])
    assert selected.keep[selected.is_merged].tolist() == chosen.targets[0].tolist()
    torch.testing.assert_close(selected.merged, merging(chosen, 16)[0] @ tokens)


def test_the_connectors_input_is_mixed_group_by_group_of_each_request():
    torch.manual_seed(0)
    weight = torch.randn(6, 4)

    def request(inputs, key):
        return visual_tokens(
            inputs.tanh() @ weight,
            tile=[0] * 16 + [1] * 16,
            key=key,
            scores=torch.rand(32),
            keys=torch.randn(32, 3),
            connect_mixed=lambda members, weights: (weights @ inputs[members]).tanh() @ weight,
        )

    inputs = [torch.randn(32, 6) for _ in range(2)]
    requests = [request(each, f"docvqa/test/{number}") for number, each in enumerate(inputs)]
    part = registry.build("visionzip", {"keep_ratio": 0.5}).selection
    for visual, source, selected in zip(requests, inputs, part.select(requests), strict=True):
        for tile in range(2):
            span = slice(16 * tile, 16 * tile + 16)
            chosen = choose(visual.scores[None, span], visual.keys[None, span], 7, 1)
            expected = (merging(chosen, 16)[0] @ source[span]).tanh() @ weight
            torch.testing.assert_close(selected.merged[tile : tile + 1], expected)


def test_equal_tokens_are_as_many_distinct_ones():
    one = visual_tokens(torch.ones(16, 4), tile=[0] * 16, scores=torch.ones(16), keys=torch.ones(16, 3))
    for num_keep in range(1, 16):
        arguments = {"merge_at": "decoder", "target_ratio": num_keep / 16}
        (selected,) = registry.build("visionzip", arguments).selection.select([one])
        assert len(selected.keep.unique()) == len(selected.keep) == num_keep


def test_an_unknown_place_is_refused():
    with pytest.raises(ConfigError, match="merge_at='encoder'; expected connector or decoder"):
        registry.build("visionzip", {"merge_at": "encoder"})
