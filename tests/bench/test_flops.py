"""The operations of a prefill, against what PyTorch counts while a model runs."""

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from vico_eval.bench.flops import (
    attention_width,
    connector_flops,
    decode_flops,
    flop_counter,
    layer_weights,
    prefill_flops,
    router_flops,
    vision_flops,
)
from vico_eval.bench.random_models import flash_config
from vico_eval.engine.cpu import pack_linears
from vico_eval.errors import ConfigError
from vico_eval.families.decoder.decoder import CompressingDecoder
from vico_eval.families.decoder.last_layer import last_token_only
from vico_eval.families.decoder.segments import Prompt, PromptCache
from vico_eval.families.internvl.config import VicoInternVLConfig
from vico_eval.families.internvl.modeling import VicoInternVL
from vico_eval.methods import registry

SIZES = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
DECODERS = {"qwen3": {"head_dim": 32}, "qwen2": {}, "llama": {}}
VISUAL, TEXT = 240, 8


@pytest.fixture(params=[(name, attention) for name in DECODERS for attention in ("sdpa", "eager")], ids="-".join)
def model(request):
    name, attention = request.param
    config = CONFIG_MAPPING[name](**SIZES, **DECODERS[name], attn_implementation=attention)
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


@torch.inference_mode()
def counted(model, method, arguments):
    """PyTorch's count of a prefill, ours, and the tokens of each layer."""
    model.model = CompressingDecoder(model.model, registry.build(method, arguments).decoder)
    is_visual = torch.arange(VISUAL + TEXT)[None] < VISUAL
    cache = PromptCache(model.config, Prompt(is_visual, ("task/test/0",)))
    embeddings = torch.randn(1, VISUAL + TEXT, model.config.hidden_size)
    with flop_counter() as counter:
        model(inputs_embeds=embeddings, past_key_values=cache, logits_to_keep=1)
    tokens = [visual + TEXT for visual in cache.visual_tokens_per_layer(0)]
    return counter.get_total_flops(), prefill_flops(model.config, tokens), tokens


@pytest.mark.parametrize(
    ("method", "arguments", "lengths"), [("fastv", {"keep_ratio": 1.0}, 1), ("fastv", {}, 2), ("sparsevlm", {}, 4)]
)
def test_pytorch_counts_the_same_but_takes_attention_for_a_full_square(model, method, arguments, lengths):
    total, ours, tokens = counted(model, method, arguments)
    assert len(set(tokens)) == lengths
    full_square = ours.total + ours.attention
    # What is more is what a method computes to choose tokens.
    assert full_square <= total < 1.02 * full_square


def test_the_formula_for_qwen3_8b_is_the_known_number():
    config = CONFIG_MAPPING["qwen3"](
        vocab_size=151936,
        hidden_size=4096,
        intermediate_size=12288,
        num_hidden_layers=36,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
    )
    assert 36 * layer_weights(config) == pytest.approx(6.946e9, rel=1e-4)
    assert attention_width(config) == 4096
    # 10 tiles of 256 and 64 tokens of text: 38.5 TFLOP; with half of the visual tokens gone everywhere, half of them.
    whole, half = (prefill_flops(config, [visual + 64] * 36).total for visual in (2560, 1280))
    assert whole == pytest.approx(38.5e12, rel=2e-3)
    assert whole / half == pytest.approx(2.00, abs=0.005)


def test_each_layer_counts_with_its_own_tokens():
    config = CONFIG_MAPPING["qwen3"](**SIZES, head_dim=32)
    flops = prefill_flops(config, [10, 10, 4, 4])
    # Queries and output 64 x 128 each, keys and values 64 x 64 each, three matrices of 64 x 160
    weights = 2 * 64 * 128 + 2 * 64 * 64 + 3 * 64 * 160
    assert (flops.linear, flops.attention, flops.head) == (2 * weights * 28, 2 * 128 * 232, 2 * 64 * 512)
    assert flops.total == flops.linear + flops.attention + flops.head
    assert flops.full_square == flops.total + flops.attention


def test_a_last_layer_for_one_token_has_keys_and_values_of_all():
    config = CONFIG_MAPPING["qwen3"](**SIZES, head_dim=32)
    flops = prefill_flops(config, [10, 10, 4, 4], last_token_only=True)
    weights = 2 * 64 * 128 + 2 * 64 * 64 + 3 * 64 * 160
    assert flops.linear == 2 * (weights * 25 + 2 * 64 * 64 * 3)
    assert (flops.attention, flops.last_query) == (2 * 128 * 216, 4 * 128 * 4)
    assert flops.total == flops.linear + flops.attention + flops.last_query + flops.head
    assert flops.full_square == flops.total + flops.attention


@pytest.mark.parametrize("name", DECODERS)
@torch.inference_mode()
def test_pytorch_counts_the_same_for_such_a_layer_packed_or_not(name):
    config = CONFIG_MAPPING[name](**SIZES, **DECODERS[name])
    model = AutoModelForCausalLM.from_config(config).eval()
    embeddings = torch.randn(2, 60, config.hidden_size)
    for prepare in (lambda _: None, pack_linears):
        prepare(model)
        with flop_counter() as counter, last_token_only(model.model):
            model(inputs_embeds=embeddings, use_cache=True, logits_to_keep=1)
        expected = 2 * prefill_flops(config, [60] * 4, last_token_only=True).full_square
        # Some versions of transformers make rotary angles by a product, in 0.004% of the operations.
        assert counter.get_total_flops() == pytest.approx(expected, rel=1e-4)


def test_what_cannot_be_counted_is_refused():
    config = CONFIG_MAPPING["qwen3"](**SIZES)
    with pytest.raises(ConfigError, match="got token counts for 3 layers, but the decoder has 4"):
        prefill_flops(config, [10, 10, 10])
    experts = CONFIG_MAPPING["qwen3_moe"](**SIZES, num_experts=8)
    with pytest.raises(ConfigError, match="mixture of 8 experts"):
        prefill_flops(experts, [10] * 4)


def test_what_stands_before_the_decoder_costs_what_pytorch_counts():
    vision = {
        "hidden_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "intermediate_size": 80,
        "image_size": (56, 56),
        "patch_size": (7, 7),
    }
    config = VicoInternVLConfig(
        vision_config=vision,
        text_config=CONFIG_MAPPING["qwen3"](**SIZES),
        parts={"low_connector": {}, "router": {}},
        router_num_heads=6,
    )
    model = VicoInternVL(config).eval().requires_grad_(False)
    tiles = 3

    def counted(run, *inputs):
        with torch.inference_mode(), flop_counter() as counter:
            output = run(*inputs)
        return output, counter.get_total_flops()

    vit_tokens, of_encoder = counted(model.encode_tiles, torch.randn(tiles, 3, 56, 56))
    assert of_encoder == pytest.approx(tiles * vision_flops(config), rel=0.005)
    of_connectors = counted(model.visual_tokens, vit_tokens, torch.tensor([True, False, True]))[1]
    assert of_connectors == pytest.approx(connector_flops(config, num_high=1, num_low=2), rel=0.005)
    of_router = counted(model.router.p_compress, vit_tokens)[1]
    assert of_router == pytest.approx(tiles * router_flops(config), rel=0.005)
    config.parts["pvtc"] = {}
    with pytest.raises(ConfigError, match="no formula for the operations of PVTC"):
        connector_flops(config, 1, 0)


def test_decoding_sees_one_token_more_at_each_step():
    config = CONFIG_MAPPING["qwen3"](**SIZES, head_dim=32)
    # Two steps behind a prompt of 10, 10, 4 and 4: 11 + 11 + 5 + 5 and 12 + 12 + 6 + 6 tokens are attended to.
    weights = 2 * 64 * 128 + 2 * 64 * 64 + 3 * 64 * 160
    expected = 2 * (4 * 2 * weights + 2 * 64 * 512) + 4 * 128 * (32 + 36)
    assert decode_flops(config, [10, 10, 4, 4], 2) == expected
    assert decode_flops(config, [10, 10, 4, 4], 0) == 0


def test_the_formulas_of_internvl_3_5_8b_are_the_known_numbers():
    config = flash_config("8b")
    assert vision_flops(config) == pytest.approx(0.722e12, rel=5e-3)
    # High: 256 tokens through 4096 x 4096 twice. Low: 64 through 16384 x 8192, 8192 x 8192, 8192 x 4096.
    assert connector_flops(config, 1, 0) == 2 * 256 * 2 * 4096**2
    assert connector_flops(config, 0, 1) == 2 * 64 * (16384 * 8192 + 8192 * 8192 + 8192 * 4096)
    assert router_flops(config) < 0.001 * vision_flops(config)
