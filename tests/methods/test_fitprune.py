"""FitPrune makes the choices of its released code (tests/golden/fitprune), and says clearly what it can't do."""

import json

import pytest
import torch

from vico_eval.errors import ConfigError
from vico_eval.families.internvl.config import VicoInternVLConfig
from vico_eval.families.internvl.facts import facts_of
from vico_eval.methods import registry
from vico_eval.methods.fitprune import attention_received, attention_scores
from vico_eval.methods.shared.fitprune_recipes import RELEASED, Recipe, at_depth, mixture, rounded

from .released_decoders import Released

GOLDEN = Released("fitprune")
CASES = [(prompt, case) for prompt in GOLDEN.prompts for case in GOLDEN.meta["cases"][prompt]]
TABLES = {
    "released_60": {"recipe": "llava"},
    "released_90": {"recipe": "llava", "reduction": 0.9},
    "released_40_scaled": {"recipe": "llava", "reduction": 0.4},
    "released_90_scaled": {"recipe": "llava", "reduction": 0.9},
    "next_60_scaled": {"recipe": "llava_next", "reduction": 0.6},
}


def recipe_file(folder, *recipes, **changes):
    """A file of recipes, reduction -> tokens that leave in each layer."""
    content = {
        "checkpoint": "a model",
        "sha256": "0" * 64,
        "num_layers": len(recipes[0][1]),
        "num_visual": 30,
        "num_samples": 3,
        "recipes": [{"reduction": reduction, "leave": leave} for reduction, leave in recipes],
    }
    path = folder / "recipes.json"
    path.write_text(json.dumps(content | changes))
    return str(path)


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    leave = GOLDEN.expected["c"]["all_leave"]["leave_per_layer"]
    searched = recipe_file(tmp_path_factory.mktemp("recipes"), (0.9, leave))
    return TABLES | {"all_leave": {"recipe": searched, "reduction": 0.9}}


@pytest.fixture(scope="module", params=["sdpa", "eager"])
def model(request):
    return GOLDEN.model(request.param)


@pytest.mark.parametrize(("prompt", "case"), CASES)
@torch.inference_mode()
def test_tokens_positions_and_logits_are_the_released_ones(model, arguments, prompt, case):
    GOLDEN.use(model, arguments[case])
    GOLDEN.check_prefill(model, prompt, case)


@pytest.mark.parametrize(("prompt", "case"), CASES)
@torch.inference_mode()
def test_scores_and_the_tokens_that_leave_are_the_released_ones(model, arguments, prompt, case):
    part = GOLDEN.use(model, arguments[case])
    GOLDEN.prefill(model, prompt)
    seen = {state.layer - 1: (state, asked) for state, asked in part.seen if asked is not None}
    layers = GOLDEN.expected[prompt][case]["layers"]
    assert sorted(seen) == [layer["layer"] for layer in layers]
    for layer in layers:
        state, asked = seen[layer["layer"]]
        visual = state.is_visual.nonzero()[:, 0]
        assert len(visual) == layer["visual_before"]
        score = attention_scores(state.attention, state.is_visual)
        expected = GOLDEN.tensors[f"{prompt}.{case}.layer{layer['layer']}.score"]
        torch.testing.assert_close(score, expected, rtol=2e-4, atol=0)
        assert (~torch.isin(visual, asked.source)).nonzero()[:, 0].tolist() == layer["left"]


@pytest.mark.parametrize("beams", [1, 2])
@torch.inference_mode()
def test_padding_changes_nothing(model, arguments, beams):
    GOLDEN.use(model, arguments["released_40_scaled"])
    GOLDEN.check_batch(model, "released_40_scaled", beams)


class Attention:
    """Random softmax rows, [heads, rows, tokens], causal; counts the rows that were asked for at once."""

    def __init__(self, num_heads, num_tokens):
        logits = torch.randn(num_heads, num_tokens, num_tokens, generator=torch.Generator().manual_seed(0))
        behind = torch.ones(num_tokens, num_tokens).triu(1).bool()
        self.weights, self.most = logits.masked_fill(behind, float("-inf")).softmax(dim=-1), 0

    def __call__(self, queries):
        self.most = max(self.most, len(queries))
        return self.weights[:, queries]


IS_VISUAL = torch.tensor([False] * 3 + [True] * 20 + [False] * 2 + [True] * 30 + [False] * 9)


def test_rows_are_maxima_over_heads_summed_over_the_text_and_averaged_over_visual_rows():
    attention = Attention(4, len(IS_VISUAL))
    own, cross = attention_received(attention, IS_VISUAL)
    rows = attention.weights.max(dim=0).values[:, IS_VISUAL]
    torch.testing.assert_close(own, rows[IS_VISUAL].mean(dim=0))
    torch.testing.assert_close(cross, rows[-9:].sum(dim=0))  # the text between two images looks at nothing
    torch.testing.assert_close(attention_scores(attention, IS_VISUAL), own * cross)
    assert float((own * cross).min()) > 0
    assert float((own * cross).max()) <= 9
    attention.weights = attention.weights[[2, 0, 3, 1]]
    assert torch.equal(attention_scores(attention, IS_VISUAL), own * cross)


@pytest.mark.parametrize("rows", [1, 7, 32, 1000])
def test_the_size_of_blocks_changes_no_score(rows):
    attention = Attention(4, len(IS_VISUAL))
    expected = attention_scores(attention, IS_VISUAL, rows=10**6)
    attention.most = 0
    torch.testing.assert_close(attention_scores(attention, IS_VISUAL, rows), expected)
    assert attention.most == min(rows, 50)


def test_without_text_behind_the_image_visual_rows_decide_alone():
    attention = Attention(2, 24)
    is_visual = torch.tensor([False] * 4 + [True] * 20)
    own, cross = attention_received(attention, is_visual)
    assert cross is None
    assert torch.equal(attention_scores(attention, is_visual), own)


class FakeState:
    """What FitPrune looks at; every visual token gets the same attention."""

    key, num_layers = "task/test/0", 3
    is_visual = torch.tensor([False] + [True] * 5 + [False])

    def __init__(self, layer, *visual_tokens):
        self.layer, self.visual_tokens = layer, visual_tokens

    def attention_rows(self, queries):
        return torch.ones(2, len(queries), 7)

    def check_finite(self, what, values):
        assert bool(values.isfinite().all())


def test_of_equal_scores_the_earlier_token_leaves(tmp_path):
    recipe = recipe_file(tmp_path, (0.6, [2, 0, 0]), num_visual=5)
    part = registry.build("fitprune", {"recipe": recipe}).decoder
    assert part.layers(3) == {1}
    assert part.next_tokens(FakeState(1, 5)).source.tolist() == [0, 3, 4, 5, 6]
    assert part.next_tokens(FakeState(2, 5, 3)) is None


def test_released_numbers():
    leave = {reduction: sum(recipe.leave) for reduction, recipe in RELEASED["llava"].items()}
    left = [510, 427, 312, 240, 173, 152, 127, 88, 62, 37]
    assert [576 - leave[reduction] for reduction in sorted(leave)] == left
    shares = [sum(RELEASED["llava"][reduction].curve) / 32 for reduction in sorted(leave)]
    assert shares == pytest.approx([0.94, 0.855, 0.735, 0.629, 0.524, 0.476, 0.425, 0.326, 0.227, 0.126], abs=6e-4)
    assert [2880 - sum(recipe.leave) for recipe in RELEASED["llava_next"].values()] == [1368, 784]
    assert all(recipe.leave[-1] == 0 for recipes in RELEASED.values() for recipe in recipes.values())


def test_numbers_are_scaled_one_by_one_and_nothing_leaves_twice():
    recipe = RELEASED["llava"][0.6]
    assert recipe.counts(576)[:5] == (576, 562, 529, 440, 404)
    assert recipe.counts(96)[:5] == (96, 94, 89, 75, 69)  # 14/6, 33/6, 89/6, 36/6: cut off, not rounded
    assert Recipe((3, 9, 0, 0), 12).counts(12) == (12, 9, 0, 0)


@pytest.mark.parametrize("num_layers", [4, 24, 28, 36, 64])
def test_at_another_depth_as_many_are_left_at_the_same_share_of_it(num_layers):
    for recipe in RELEASED["llava"].values():
        curve = at_depth(recipe.curve, num_layers)
        assert len(curve) == num_layers
        assert curve[0] == 1
        assert list(curve) == sorted(curve, reverse=True)
        assert curve[num_layers // 2] == recipe.curve[16]
    assert at_depth(recipe.curve, 32) == recipe.curve


@pytest.mark.parametrize("num_layers", [4, 32, 36])
@pytest.mark.parametrize("target", [0.03125, 0.1, 0.25, 0.33, 0.55, 0.9, 0.97, 1.0])
@pytest.mark.parametrize("recipe", RELEASED)
def test_every_request_meets_its_target_up_to_whole_tokens(recipe, target, num_layers):
    target = max(target, 1 / num_layers)
    part = registry.build("fitprune", {"recipe": recipe, "target_ratio": target}).decoder
    curve = mixture(target, tuple(RELEASED[recipe].values()), num_layers)
    assert sum(curve) / num_layers == pytest.approx(target)
    assert curve[0] == 1
    assert list(curve) == sorted(curve, reverse=True)
    assert curve[-1] >= 0
    for num_visual in (1, 16, 208, 3328):
        counts = part.counts("task/test/0", num_visual, num_layers)
        assert counts == rounded(curve, num_visual)
        assert sum(counts) / num_layers == pytest.approx(target * num_visual, abs=0.5)
        left_before = {layer for layer in range(1, num_layers) if counts[layer] < counts[layer - 1]}
        assert left_before <= part.layers(num_layers)


def test_a_released_recipe_is_its_own_mixture():
    recipes = tuple(RELEASED["llava"].values())
    for recipe in recipes:
        assert mixture(sum(recipe.curve) / 32, recipes, 32) == pytest.approx(recipe.curve)


def test_a_target_of_everything_looks_at_nothing():
    part = registry.build("fitprune", {"recipe": "llava", "target_ratio": 1.0}).decoder
    assert part.layers(36) == set()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"recipe": "internvl"}, "recipe='internvl'; expected a file, FILE.json, or one of llava, llava_next"),
        ({"recipe": "llava", "reduction": 0.6, "target_ratio": 0.5}, "reduction or target_ratio, not both"),
        ({"recipe": "llava", "target_ratio": 1.5}, "target_ratio=1.5"),
    ],
)
def test_impossible_values_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        registry.build("fitprune", arguments)


def check(arguments, num_layers=24):
    config = VicoInternVLConfig()
    config.text_config.num_hidden_layers = num_layers
    registry.build("fitprune", arguments).decoder.check(facts_of(config, "some checkpoint"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "needs a recipe, .*fit-recipe` finds for 'some checkpoint', or recipe=llava.*not searched for it"),
        (
            {"recipe": "llava", "reduction": 0.65},
            "reduction=0.65; llava has recipes for 0.1, 0.2, .*0.9.*target",
        ),
        ({"recipe": "llava", "target_ratio": 0.04}, "can't reach target_ratio=0.04: .* of 24 layers.*at least 0.042"),
        ({"recipe": "nowhere/recipes.json"}, "recipe=nowhere/recipes.json can't be read"),
    ],
)
def test_what_the_model_can_not_do_is_refused_before_loading(arguments, message):
    with pytest.raises(ConfigError, match=message):
        check(arguments)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "searched for a decoder of 3 layers, but that of 'some checkpoint' has 24"),
        ({"num_layers": 4}, r"has \[1, 1, 0\] for reduction 0.6; expected .* each of 4 layers"),
        ({"num_visual": 1}, "at most 1 in total"),
        ({"num_visual": 0}, "num_visual: "),
        ({"author": "me"}, "author: Extra inputs"),
        ({"recipes": []}, "recipes: "),
    ],
)
def test_a_file_that_is_not_for_the_model_is_refused_before_loading(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        check({"recipe": recipe_file(tmp_path, (0.6, [1, 1, 0]), **changes)})


def test_a_file_for_the_model_is_taken(tmp_path):
    path = recipe_file(tmp_path, (0.6, [10, *[0] * 23]), (0.8, [20, *[0] * 23]))
    check({"recipe": path, "reduction": 0.8})
    part = registry.build("fitprune", {"recipe": path, "target_ratio": 0.5}).decoder
    assert part.counts("task/test/0", 30, 24)[1] == round(30 * 11 / 23)
