"""The cache with room for the tokens to come holds what transformers' own holds."""

import pytest
import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicSlidingWindowLayer

from vico_eval.families.decoder import cache as cache_module
from vico_eval.families.decoder.cache import ROOM, PreallocatedCache, PreallocatedLayer

from .small_decoders import config, decoder, generate, padded_prompts


def states(tokens, rows=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, 3, tokens, 4, generator=generator) for _ in range(2)]


@pytest.mark.parametrize("settings", [{"num_beams": 1}, {"num_beams": 3}])
@pytest.mark.parametrize("room", [1, 3, ROOM])
def test_generation_is_the_same_as_with_transformers_own(room, settings, monkeypatch):
    monkeypatch.setattr(cache_module, "ROOM", room)
    model = decoder("qwen3")
    found, expected = (
        generate(model, *padded_prompts(), tokens=8, past_key_values=cache, **settings)
        for cache in (PreallocatedCache(model.config), DynamicCache(config=model.config))
    )
    assert torch.equal(found.sequences, expected.sequences)
    torch.testing.assert_close(torch.stack(found.logits), torch.stack(expected.logits))
    for mine, own in zip(found.past_key_values.layers, expected.past_key_values.layers, strict=True):
        torch.testing.assert_close(mine.keys, own.keys)
        torch.testing.assert_close(mine.values, own.values)


def test_what_is_held_is_copied_only_when_the_room_is_used_up():
    layer = PreallocatedLayer()
    keys, values = layer.update(*states(5))
    places = set()
    for step in range(ROOM):
        keys, values = layer.update(*states(1, seed=1 + step))
        places.add((keys.data_ptr(), values.data_ptr()))
    assert len(places) == 1
    assert layer.get_seq_length() == 5 + ROOM
    longer, _ = layer.update(*states(1, seed=99))
    assert longer.data_ptr() != keys.data_ptr()
    torch.testing.assert_close(longer[:, :, :-1], keys)
    parts = [states(5), *(states(1, seed=1 + step) for step in range(ROOM))]
    assert torch.equal(keys, torch.cat([key for key, _ in parts], dim=-2))
    assert torch.equal(values, torch.cat([value for _, value in parts], dim=-2))


def reordered(layer):
    layer.reorder_cache(torch.tensor([1, 1]))


def repeated(layer):
    layer.batch_repeat_interleave(2)


def first_row(layer):
    layer.batch_select_indices(torch.tensor([0]))


def first_row_as_a_view(layer):
    layer.batch_select_indices(slice(0, 1))


def cropped(layer):
    layer.crop(-2)


def emptied(layer):
    layer.reset()


@pytest.mark.parametrize("change", [reordered, repeated, first_row, first_row_as_a_view, cropped, emptied])
def test_new_tokens_stand_behind_what_a_change_has_left(change):
    mine, own = PreallocatedLayer(), DynamicCache(config=config("qwen3")).layers[0]
    for layer in (mine, own):
        layer.update(*states(5))
        change(layer)
        layer.update(*states(2, rows=layer.keys.shape[0] if layer.is_initialized else 2, seed=1))
    assert torch.equal(mine.keys, own.keys)
    assert torch.equal(mine.values, own.values)


def test_layers_with_sliding_attention_keep_their_own():
    kinds = [
        type(layer)
        for layer in PreallocatedCache(
            config("qwen2", use_sliding_window=True, sliding_window=4, max_window_layers=1)
        ).layers
    ]
    assert kinds == [PreallocatedLayer, DynamicSlidingWindowLayer, DynamicSlidingWindowLayer]
