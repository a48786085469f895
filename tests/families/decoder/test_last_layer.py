"""The last layer of a prefill, for the last token alone."""

import pytest
import torch

from vico_eval.families.decoder.last_layer import LastLayer, last_token_only

from .small_decoders import DECODERS, SIZES, decoder, generate, padded_prompts


@pytest.fixture
def prompts():
    return padded_prompts()


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", DECODERS)
def test_generation_is_the_same_and_the_last_layer_sees_one_token(name, attention, prompts):
    model = decoder(name, attn_implementation=attention)
    expected = generate(model, *prompts)
    lengths = [[] for _ in model.model.layers]
    for layer, seen in zip(model.model.layers, lengths, strict=True):
        layer.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[0].shape[1]))
    with last_token_only(model.model):
        found = generate(model, *prompts)
    assert torch.equal(found.sequences, expected.sequences)
    torch.testing.assert_close(torch.stack(found.logits), torch.stack(expected.logits), atol=1e-5, rtol=1e-5)
    assert lengths == [[9, 1, 1, 1, 1], [9, 1, 1, 1, 1], [1, 1, 1, 1, 1]]
    for layer, own in zip(found.past_key_values.layers, expected.past_key_values.layers, strict=True):
        torch.testing.assert_close(layer.keys, own.keys, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(layer.values, own.values, atol=1e-5, rtol=1e-5)


def test_beams_and_a_prompt_of_one_token(prompts):
    model = decoder("qwen3")
    for embeddings, mask, beams in ((*prompts, 3), (prompts[0][:, :1], prompts[1][:, -1:], 1)):
        expected = generate(model, embeddings, mask, num_beams=beams)
        with last_token_only(model.model):
            assert torch.equal(generate(model, embeddings, mask, num_beams=beams).sequences, expected.sequences)


def test_without_a_cache_the_layer_works_on_all(prompts):
    model = decoder("qwen3")
    expected = generate(model, *prompts, use_cache=False)
    with last_token_only(model.model):
        assert torch.equal(generate(model, *prompts, use_cache=False).sequences, expected.sequences)


def test_outside_the_decoder_is_as_it_was():
    model = decoder("qwen3")
    layers = list(model.model.layers)
    with last_token_only(model.model):
        assert isinstance(model.model.layers[-1], LastLayer)
    assert list(model.model.layers) == layers
    with pytest.raises(RuntimeError, match="size of tensor"), last_token_only(model.model):
        model(inputs_embeds=torch.randn(1, 5, SIZES["hidden_size"] + 1))
    assert list(model.model.layers) == layers


def test_sliding_attention_and_layers_that_accelerate_moves_are_left_alone():
    sliding = decoder("qwen2", use_sliding_window=True, sliding_window=4, max_window_layers=1)
    moved = decoder("qwen3")
    moved.model.layers[-1]._hf_hook = object()
    for model in (sliding, moved):
        with last_token_only(model.model):
            assert not isinstance(model.model.layers[-1], LastLayer)
