"""SparseVLM makes the choices of its released code (tests/golden/sparsevlm), in all three variants."""

import json
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from vico_eval.errors import ConfigError
from vico_eval.families.decoder.decoder import CompressingDecoder
from vico_eval.families.decoder.segments import Prompt, PromptCache
from vico_eval.families.internvl.config import VicoInternVLConfig
from vico_eval.families.internvl.facts import facts_of
from vico_eval.methods import registry
from vico_eval.methods.interface import RequestPrompt
from vico_eval.methods.sparsevlm import (
    ROWS,
    SparseVLMConfig,
    average_share,
    cluster_means,
    going_on,
    head_mean_attention,
    keep_towards_target,
    recycling,
    solve_factor,
    undistanced_attention,
    without_distance,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "sparsevlm"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())
META = json.loads((GOLDEN / "meta.json").read_text())
CASES = [(case["prompt"], case["case"]) for case in META["cases"]]
RANK_BUDGETS = {"rank_13.5_0.0": 192, "rank_9.0_6.0": 128, "rank_0.8_0.0": 64, "rank_3.0_2.0": 128}

# A rewrite differs by 2e-5; original positions instead of renumbered ones move logits by 2.5.
LOGITS = {"atol": 2e-4, "rtol": 0}


def arguments(prompt, case):
    """What reproduces a case: released numbers are shares of 576, and "3.0 * rank + 2" is a third of "9 * rank + 6"."""
    variant, budget = case.split("_")[:2]
    if variant == "rank":
        return {"variant": "rank", "layers": "2/6/15/19", "budget": RANK_BUDGETS[case]}
    settings = {"variant": variant, "layers": "2/6/15", "budget": int(budget)}
    # 66 of 10 tokens are all of them.
    return settings | ({"keep_shares": "1/1/1"} if prompt == "c" else {})


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(GOLDEN / "checkpoint", attn_implementation="sdpa").eval()


@pytest.fixture(scope="module")
def inputs():
    return load_file(GOLDEN / "inputs.safetensors")


@pytest.fixture(scope="module")
def expected():
    return load_file(GOLDEN / "expected.safetensors")


class Watched:
    """A part whose states and answers are kept."""

    def __init__(self, part):
        self.part, self.renumbers, self.seen = part, part.renumbers, []
        self.layers, self.prepare, self.project = part.layers, part.prepare, part.project

    def next_tokens(self, state):
        self.seen.append((state, self.part.next_tokens(state)))
        return self.seen[-1][1]


def use(model, case_arguments):
    part = Watched(registry.build("sparsevlm", case_arguments).decoder)
    model.model = CompressingDecoder(getattr(model.model, "base", model.model), part)
    return part


@pytest.mark.parametrize(("prompt", "case"), CASES)
@torch.inference_mode()
def test_choices_and_logits_are_the_released_ones(model, inputs, expected, prompt, case):
    golden = EXPECTED[prompt][case]
    part = use(model, arguments(prompt, case))
    cache = PromptCache(model.config, Prompt(inputs[f"{prompt}.input_ids"][None] < 0, (prompt,)))
    embeddings = inputs[f"{prompt}.inputs_embeds"][None]
    logits = model(inputs_embeds=embeddings, past_key_values=cache).logits[0]

    assert [state.layer - 1 for state, _ in part.seen] == [layer["layer"] for layer in golden["layers"]]
    first_text = META["prompts"][prompt]["visual_start"] + META["prompts"][prompt]["visual_length"]
    raters = part.seen[0][0].prepared + META["prompts"][prompt]["length"] - first_text
    assert raters.tolist() == golden["raters"]
    for (state, kept), layer in zip(part.seen, golden["layers"], strict=True):
        visual = state.is_visual.nonzero()[:, 0]
        assert len(visual) == layer["visual_before"]
        if kept is None:
            assert layer["visual_after"] == layer["visual_before"]
            continue
        stays = torch.isin(visual, kept.source)
        assert stays.nonzero()[:, 0].tolist() == layer["kept"]
        assert (0 if kept.new is None else len(kept.new)) == layer["merged_count"]
        if kept.new is not None:
            key = f"{prompt}.{case}.layer{layer['layer']}.merged"
            torch.testing.assert_close(kept.new, expected[key], **LOGITS)
        check_score(state, layer, golden["variant"], f"{prompt}.{case}.layer{layer['layer']}", expected)
    torch.testing.assert_close(logits[-4:], expected[f"{prompt}.{case}.last4_logits"], **LOGITS)
    assert [layer.get_seq_length() for layer in cache.layers] == golden["cache_lengths_after_prefill"]
    counts = cache.visual_tokens_per_layer(0)
    assert sum(counts) / len(counts) == pytest.approx(golden["mean_visual_into_layer"], abs=1e-9)

    # The first new token's position in each layer, as the rotary embedding gets it.
    positions = {segment.first_layer: int(segment.positions[0, 0, -1]) + 1 for segment in cache.segments}
    in_layer = [positions[max(first for first in positions if first <= layer)] for layer in range(len(cache.layers))]
    assert in_layer == golden["first_decode_position_per_layer"]

    steps = [logits[-1]]
    for token in golden["greedy_tokens"][:-1]:
        steps.append(model(input_ids=torch.tensor([[token]]), past_key_values=cache).logits[0, -1])
    assert [int(step.argmax()) for step in steps] == golden["greedy_tokens"]
    torch.testing.assert_close(torch.stack(steps), expected[f"{prompt}.{case}.step_logits"], **LOGITS)


def check_score(state, layer, variant, key, expected):
    visual = state.is_visual.nonzero()[:, 0]
    rows = state.prepared + len(state.is_visual)
    tolerance = 1e-5
    score = head_mean_attention(state, rows, visual).mean(dim=0)
    if variant == "plus":
        tolerance = 2e-3  # divided by numbers near zero
        received = undistanced_attention(state, rows, visual)
        sums = len(rows) * received.sum(dim=1)
        torch.testing.assert_close(
            sums, expected[f"{key}.head_sums"], rtol=0, atol=tolerance * float(expected[f"{key}.head_sums"].abs().max())
        )
        heads = sums.topk(14).indices.sort().values
        assert heads.tolist() == layer["heads"]
        score = received[heads].mean(dim=0)
    largest = float(expected[f"{key}.score"].abs().max())
    torch.testing.assert_close(score, expected[f"{key}.score"], rtol=0, atol=tolerance * largest)


@pytest.mark.parametrize("case", ["topk_64", "plus_64", "rank_0.8_0.0"])
@torch.inference_mode()
def test_prompts_of_different_lengths_share_a_batch(model, inputs, case):
    # Budgets differ from the golden ones for `b`, so each prompt is compared with itself alone.
    use(model, arguments("a", case))

    def answer(prompts):
        longest = max(META["prompts"][prompt]["length"] for prompt in prompts)
        embeddings = torch.zeros(len(prompts), longest, model.config.hidden_size)
        ids = torch.zeros(len(prompts), longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            start = longest - META["prompts"][prompt]["length"]
            embeddings[row, start:] = inputs[f"{prompt}.inputs_embeds"]
            ids[row, start:] = inputs[f"{prompt}.input_ids"]
            mask[row, start:] = 1
        cache = PromptCache(model.config, Prompt(ids < 0, tuple(prompts)))
        settings = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
        tokens = model.generate(inputs_embeds=embeddings, attention_mask=mask, past_key_values=cache, **settings)
        return [(row.tolist(), cache.visual_tokens_per_layer(number)) for number, row in enumerate(tokens)]

    together = answer(["a", "b", "c"])
    assert together == [*answer(["a"]), *answer(["b"]), *answer(["c"])]
    assert together[0][0] == EXPECTED["a"][case]["greedy_tokens"][:6]


@pytest.mark.parametrize(("prompt", "case"), [case for case in CASES if not case[1].startswith("plus")])
def test_the_clustering_alone(expected, prompt, case):
    for layer in EXPECTED[prompt][case]["layers"]:
        if not layer["recycled_count"]:
            continue
        key = f"{prompt}.{case}.layer{layer['layer']}"
        assert recycling(layer["pruned_count"]) == (layer["recycled_count"], layer["merged_count"])
        merged = cluster_means(expected[f"{key}.recycled"], layer["merged_count"])
        torch.testing.assert_close(merged, expected[f"{key}.merged"], **LOGITS)


def test_rating_piece_by_piece_is_rating_at_once():
    weights = torch.rand(3, 100, 100, generator=torch.Generator().manual_seed(0))
    angles = torch.arange(100)[:, None] * torch.tensor([1.0, 0.1, 1.0, 0.1])
    state = SimpleNamespace(attention=lambda rows: weights[:, rows], cos=angles.cos(), sin=angles.sin())
    rows, columns = torch.arange(20, 100), torch.arange(5, 15)
    assert len(rows) > 2 * ROWS
    assert len(rows) % ROWS
    at_once = weights[:, rows][:, :, columns]
    torch.testing.assert_close(head_mean_attention(state, rows, columns), at_once.mean(dim=0))
    expected = without_distance(at_once, state, rows, columns).mean(dim=1)
    torch.testing.assert_close(undistanced_attention(state, rows, columns), expected)


def test_the_clearest_peak_comes_first_and_the_densest_token_is_it():
    # Of width 1. Density comes from the nearest other token: 0.1 for 0 and 0.1, of which 0.1 stands earlier; 0.15 for
    # 0.25; 0.5 for 5 and 5.5, of which 5 stands earlier. Peaks are 0.1, with the largest distance there is, and 5.
    tokens = torch.tensor([[5.0], [0.1], [0.0], [5.5], [0.25]])
    torch.testing.assert_close(cluster_means(tokens, 2), torch.tensor([[0.35 / 3], [5.25]]))


def test_the_text_behind_the_last_image_rates():
    part = registry.build("sparsevlm").decoder
    vectors = torch.eye(4)
    # text, image, text, image, then three words: the second word looks like the images
    embeddings = torch.stack([vectors[0], vectors[1], vectors[1], vectors[1], vectors[0], vectors[1], vectors[2]])
    is_visual = torch.tensor([0, 1, 0, 1, 0, 0, 0]).bool()
    raters = part.prepare(RequestPrompt("task/test/0", 3 * embeddings, is_visual))
    assert raters.tolist() == [-2]
    # A lone word is no better than the mean of itself, and rates all the same.
    assert part.prepare(RequestPrompt("task/test/0", embeddings[:5], is_visual[:5])).tolist() == [-1]
    assert part.prepare(RequestPrompt("task/test/0", embeddings[:4], is_visual[:4])) is None


@pytest.mark.parametrize(
    ("budget", "num_layers", "num_visual", "share"),
    [
        *((192, 32, 576, 0.359), (128, 32, 576, 0.252), (96, 32, 576, 0.198), (64, 32, 576, 0.143)),
        *((192, 36, 2560, 0.354), (128, 36, 2560, 0.248), (96, 36, 2560, 0.193), (64, 36, 2560, 0.134)),
    ],
)
def test_a_budget_means_this_share_on_average(budget, num_layers, num_visual, share):
    # 192 at 32 layers: (3 * 576 + 4 * 309 + 9 * 204 + 16 * 113) / (32 * 576) = 206.5 / 576
    config = SparseVLMConfig(budget=budget)
    assert average_share(config, num_visual, num_layers) == pytest.approx(share, abs=6e-4)


@pytest.mark.parametrize("variant", ["topk", "plus"])
@pytest.mark.parametrize("target", [0.2, 0.55, 0.9])
def test_the_target_is_met_on_average_over_layers(variant, target):
    config = SparseVLMConfig(variant=variant, target_ratio=target)
    factor = solve_factor(config, 2560, 36)
    assert average_share(config, 2560, 36, factor) == pytest.approx(target, abs=1e-3)


@pytest.mark.parametrize("variant", ["topk", "plus", "rank"])
def test_a_target_of_everything_prunes_nothing(variant):
    part = registry.build("sparsevlm", {"variant": variant, "target_ratio": 1.0}).decoder
    assert part.layers(36) == set()
    config = VicoInternVLConfig()
    config.text_config.num_attention_heads = 14
    part.check(facts_of(config, "some checkpoint"))


def prune_by_rank(config, num_visual, num_layers, own):
    """Visual tokens of each layer where the layers would keep `own` by themselves, as far as they have so many."""
    counts, current = [], num_visual
    wishes = dict(zip(config.pruning_layers(num_layers), own, strict=True))
    for layer in range(num_layers):
        counts.append(current)
        if layer in wishes:
            keep = keep_towards_target(config, counts, num_layers, min(wishes[layer], current))
            current = going_on(current, keep)
    return counts


@pytest.mark.parametrize(("num_visual", "num_layers"), [(1, 24), (16, 28), (576, 32), (2560, 36), (9000, 64)])
@pytest.mark.parametrize("target", [0.2, 0.55, 0.9])
@pytest.mark.parametrize(
    "own", [(0.0, 0.0, 0.0, 0.0), (1.0, 1.0, 1.0, 1.0), (0.1, 0.8, 0.0, 0.6), (0.9, 0.5, 0.5, 0.1)]
)
def test_rank_meets_the_target_whatever_the_ranks_are(num_visual, num_layers, target, own):
    config = SparseVLMConfig(variant="rank", target_ratio=target)
    counts = prune_by_rank(config, num_visual, num_layers, [int(share * num_visual) for share in own])
    assert sum(counts) / num_layers == pytest.approx(target * num_visual, abs=1)
    assert all(one >= two for one, two in pairwise(counts))


@pytest.mark.parametrize(("layers", "target"), [("2/6/15/19", 0.125), ("0/1/3", 0.135)])
def test_rank_meets_a_target_of_which_merged_tokens_take_a_good_part(layers, target):
    config = SparseVLMConfig(variant="rank", budget=64, layers=layers, target_ratio=target)
    counts = prune_by_rank(config, 9000, 36, [9000] * len(config.pruning_layers(36)))
    assert sum(counts) / 36 == pytest.approx(target * 9000, abs=1)


def test_a_higher_rank_keeps_more_there_and_less_later():
    config = SparseVLMConfig(variant="rank", target_ratio=0.5)
    low, high = (prune_by_rank(config, 576, 32, (own, 200, 110, 110)) for own in (200, 300))
    assert low[3] < high[3] < 576
    assert low[-1] > high[-1]
    # 288 of 576 on average. 3 layers of 576 leave 7488 for 29. By itself the first would hand on 300 + 9 merged ones to
    # 4 layers; 200 + 4, 110 + 3 and 110 + 1 are expected for the 9, 4 and 12 behind: 4856. 309 * 7488 / 4856 = 476.5.
    assert high[3] == 476


@pytest.mark.parametrize("target", [0.4, 0.55, 0.8])
@torch.inference_mode()
def test_the_account_of_rank_says_that_the_target_is_met(model, inputs, target):
    part = use(model, {"variant": "rank", "layers": "2/6/15/19", "target_ratio": target})
    for prompt in META["prompts"]:
        cache = PromptCache(model.config, Prompt(inputs[f"{prompt}.input_ids"][None] < 0, (prompt,)))
        model(inputs_embeds=inputs[f"{prompt}.inputs_embeds"][None], past_key_values=cache)
        counts = cache.visual_tokens_per_layer(0)
        assert sum(counts) / len(counts) == pytest.approx(target * counts[0], abs=1)
    assert [state.visual_tokens for state, _ in part.seen[-4:]] == [counts[: layer + 1] for layer in (2, 6, 15, 19)]


def test_a_schedule_of_ones_own():
    config = registry.build("sparsevlm", {"layers": "1/4", "keep_shares": "0.5/0.25"}).decoder.config
    assert config.share_behind(8) == {1: 0.5, 4: 0.25}
    # Command lines deliver a lone number as one.
    assert registry.build("sparsevlm", {"layers": 3, "keep_shares": 0.5}).decoder.config.share_behind(8) == {3: 0.5}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"variant": "v3"}, "variant='v3'; expected one of topk, plus, rank"),
        ({"budget": 100}, "budget=100 for variant topk; expected one of 192, 128, 96, 64"),
        ({"variant": "rank", "budget": 96}, "budget=96 for variant rank; expected one of 192, 128, 64"),
        ({"variant": "rank", "keep_shares": "0.5/0.4/0.3/0.2"}, "rank takes no keep_shares"),
        ({"target_ratio": 0.0}, "target_ratio=0.0"),
        ({"variant": "rank", "target_ratio": 1.5}, "target_ratio=1.5"),
        ({"layers": "2/two"}, "layers='2/two'; expected numbers"),
        ({"layers": "-1/2"}, "layers='-1/2'; expected numbers of at least 0"),
        ({"keep_shares": "0.5/nan/0.1"}, "keep_shares='0.5/nan/0.1'; expected numbers of at least 0"),
        ({"layers": "6/2/15"}, "expected increasing integers"),
        ({"keep_shares": "0.5/0.2"}, "2 shares for 3 layers"),
        ({"keep_shares": "50/20/10"}, r"keep_shares='50/20/10'; expected shares in \[0, 1\]"),
        ({"plus_heads": 0}, "plus_heads=0"),
        ({"keep_ratio": 0.5}, "method 'sparsevlm' has no argument 'keep_ratio'"),
    ],
)
def test_impossible_values_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        registry.build("sparsevlm", arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target_ratio": 0.1}, "can't reach target_ratio=0.1: 3 of 24 layers.*at least 0.1"),
        ({"variant": "plus", "plus_heads": 8, "target_ratio": 0.1}, "can't reach target_ratio=0.1: 3 of 24.*0.125"),
        ({"variant": "rank", "target_ratio": 0.1}, "can't reach target_ratio=0.1: 3 of 24 layers.*at least 0.1"),
        # 7 of 24 layers are whole, and behind them nothing but merged tokens can be left.
        ({"layers": 6, "keep_shares": 0.5, "target_ratio": 0.29}, "can't reach target_ratio=0.29: 7 of 24 layers"),
        # 3 layers of all tokens and 2 of nearly all, 19 with none but merged ones
        ({"layers": "2/4", "keep_shares": "0.5/0", "target_ratio": 0.9}, "'0.5/0' leaves at most 0.2"),
        ({"layers": "2/6/30"}, "after layers 2/6/30, .* has 24 layers; expected 0 to 22"),
        ({"variant": "rank", "layers": "2/6/15/23"}, "after layers 2/6/15/23, .* has 24 layers; expected 0 to 22"),
        ({"variant": "plus"}, "plus_heads=14 heads rate.*has 8"),
    ],
)
def test_what_the_decoder_is_too_small_for_is_refused_before_loading(arguments, message):
    config = VicoInternVLConfig()
    config.text_config.num_hidden_layers, config.text_config.num_attention_heads = 24, 8
    with pytest.raises(ConfigError, match=message):
        registry.build("sparsevlm", arguments).decoder.check(facts_of(config, "some checkpoint"))
