"""FastV reproduces what its released code computes (tests/golden/fastv), and says clearly what it can't do."""

import json
from pathlib import Path

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
from vico_eval.methods.shared.ranking import highest, random_scores

GOLDEN = Path(__file__).parents[1] / "golden" / "fastv"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())
META = json.loads((GOLDEN / "meta.json").read_text())
CASES = [(prompt, case) for prompt in META["prompts"] for case in EXPECTED[prompt] if case.startswith("K")]

# A rewrite in float32 differs by 1e-5; the smallest of the likely mistakes moves logits by 0.88.
LOGITS = {"atol": 2e-4, "rtol": 0}


@pytest.fixture(scope="module", params=["sdpa", "eager"])
def model(request):
    return AutoModelForCausalLM.from_pretrained(GOLDEN / "checkpoint", attn_implementation=request.param).eval()


@pytest.fixture(scope="module")
def inputs():
    return load_file(GOLDEN / "inputs.safetensors")


@pytest.fixture(scope="module")
def expected():
    return load_file(GOLDEN / "expected.safetensors")


def compress(model, case):
    """The model with FastV as the case says; the release's R is the share that leaves."""
    part = registry.build("fastv", {"layer": case["K"], "keep_ratio": 1 - case["R"]}).decoder
    base = getattr(model.model, "base", model.model)
    model.model = CompressingDecoder(base, part)
    return model


def batch(inputs, prompts):
    """Embeddings [batch, N, D], mask [batch, N] and prompt of several prompts, left-padded."""
    rows = [inputs[f"{prompt}.inputs_embeds"] for prompt in prompts]
    longest = max(map(len, rows))
    embeddings = torch.zeros(len(rows), longest, rows[0].shape[1])
    mask = torch.zeros(len(rows), longest, dtype=torch.long)
    is_visual = torch.zeros(len(rows), longest, dtype=torch.bool)
    for number, (prompt, row) in enumerate(zip(prompts, rows, strict=True)):
        embeddings[number, longest - len(row) :] = row
        mask[number, longest - len(row) :] = 1
        is_visual[number, longest - len(row) :] = inputs[f"{prompt}.input_ids"] < 0
    return embeddings, mask, Prompt(is_visual, tuple(prompts))


@pytest.mark.parametrize(("prompt", "case"), CASES)
@torch.inference_mode()
def test_prefill_keeps_the_released_tokens_and_gives_their_logits(model, inputs, expected, prompt, case):
    golden = EXPECTED[prompt][case]
    embeddings, _, described = batch(inputs, [prompt])
    cache = PromptCache(model.config, described)
    output = compress(model, golden)(inputs_embeds=embeddings, past_key_values=cache)
    assert cache.segments[-1].positions[0, 0].tolist() == golden["kept_positions"]
    torch.testing.assert_close(output.logits[0], expected[f"{prompt}.{case}.prefill_logits"], **LOGITS)
    lengths = [layer.get_seq_length() for layer in cache.layers]
    assert lengths == golden["static"]["cache_lengths_after_prefill"]
    counts = cache.visual_tokens_per_layer(0)
    assert sum(counts) / len(counts) == golden["mean_visual_tokens_per_layer"]


@pytest.mark.parametrize(("prompt", "case"), CASES)
@torch.inference_mode()
def test_decoding_gives_the_released_logits_and_tokens(model, inputs, expected, prompt, case):
    golden = EXPECTED[prompt][case]
    embeddings, _, described = batch(inputs, [prompt])
    cache = PromptCache(model.config, described)
    compress(model, golden)
    logits = [model(inputs_embeds=embeddings, past_key_values=cache).logits[0, -1]]
    tokens = golden["static"]["greedy_tokens"]
    for token in tokens:
        logits.append(model(input_ids=torch.tensor([[token]]), past_key_values=cache).logits[0, -1])
    torch.testing.assert_close(torch.stack(logits[:-1]), expected[f"{prompt}.{case}.static.step_logits"], **LOGITS)
    assert [layer.get_seq_length() for layer in cache.layers] == golden["static"]["cache_lengths_at_end"]


@pytest.mark.parametrize("case", sorted({case for _, case in CASES}))
@torch.inference_mode()
def test_prompts_of_different_lengths_share_a_batch(model, inputs, case):
    prompts = list(META["prompts"])
    embeddings, mask, described = batch(inputs, prompts)
    compress(model, EXPECTED[prompts[0]][case])
    cache = PromptCache(model.config, described)
    tokens = model.generate(
        inputs_embeds=embeddings,
        attention_mask=mask,
        past_key_values=cache,
        max_new_tokens=META["new_tokens"],
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    for row, prompt in enumerate(prompts):
        golden = EXPECTED[prompt][case]
        assert tokens[row].tolist() == golden["static"]["greedy_tokens"]
        last = cache.segments[-1]
        assert last.positions[0, row, last.starts[row] :].tolist() == golden["kept_positions"]


def test_of_equal_scores_the_earlier_token_stays_and_text_never_competes():
    scores = torch.tensor([9.0, 1.0, 2.0, 2.0, 2.0, 9.0])
    is_visual = torch.tensor([False, True, True, True, True, False])
    assert highest(scores, is_visual, 2).tolist() == [0, 2, 3, 5]


def test_the_random_selection_depends_on_seed_and_document_alone():
    assert torch.equal(random_scores("0/docvqa/1", 9), random_scores("0/docvqa/1", 9))
    assert not torch.equal(random_scores("0/docvqa/1", 9), random_scores("0/docvqa/2", 9))
    assert not torch.equal(random_scores("0/docvqa/1", 9), random_scores("1/docvqa/1", 9))


@pytest.mark.parametrize(("layer", "target", "num_layers"), [(2, 0.55, 36), (3, 0.75, 8), (1, 0.5, 4)])
def test_the_target_is_met_on_average_over_layers(layer, target, num_layers):
    part = registry.build("fastv", {"layer": layer, "target_ratio": target}).decoder
    assert (layer + (num_layers - layer) * part.keep_ratio("docvqa/test/0", num_layers)) / num_layers == pytest.approx(
        target
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layer": 0}, "layer=0; expected at least 1"),
        ({"keep_ratio": 0.0}, r"keep_ratio=0.0; expected the share of visual tokens that stays, in \(0, 1\].*1 - R"),
        ({"keep_ratio": 50}, "keep_ratio=50.0"),
        ({"keep_ratio": 0.5, "target_ratio": 0.5}, "keep_ratio or target_ratio, not both"),
        ({"target_ratio": 1.5}, "target_ratio=1.5"),
        ({"selection": "best"}, "selection='best'; expected attention or random"),
        ({"variant": "topk"}, "method 'fastv' has no argument 'variant'"),
    ],
)
def test_impossible_values_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        registry.build("fastv", arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layer": 24}, "layer=24.*has 24 layers.*Expected 1 to 23"),
        ({"layer": 12, "target_ratio": 0.5}, "can't reach target_ratio=0.5: 12 of 24 layers.*above 0.500"),
    ],
)
def test_what_the_decoder_is_too_shallow_for_is_refused_before_loading(arguments, message):
    config = VicoInternVLConfig()
    config.text_config.num_hidden_layers = 24
    with pytest.raises(ConfigError, match=message):
        registry.build("fastv", arguments).decoder.check(facts_of(config, "some checkpoint"))
