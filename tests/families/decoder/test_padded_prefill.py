"""A padded prefill whose mask would be too large attends row by row, and nothing that is generated changes."""

from contextlib import contextmanager, nullcontext

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode

from vico_eval.engine.loading import open_engine
from vico_eval.engine.requests import GenerationSettings, ImageInput, Message, Request, Text
from vico_eval.families.decoder import padded_prefill
from vico_eval.families.decoder.last_layer import last_token_only
from vico_eval.families.decoder.padded_prefill import bounded_masks

from .small_decoders import DECODERS, decoder, generate, padded_prompts

SAME = {"atol": 1e-5, "rtol": 1e-4}


class Masks(TorchDispatchMode):
    """Keeps the number of entries of the largest mask with rows and columns that is made."""

    largest = 0

    def __torch_dispatch__(self, operation, types, arguments=(), named=None):
        made = operation(*arguments, **(named or {}))
        if isinstance(made, torch.Tensor) and made.dtype == torch.bool and made.ndim == 4:
            self.largest = max(self.largest, made.numel())
        return made


@contextmanager
def bounded(model, bound, monkeypatch):
    monkeypatch.setattr(padded_prefill, "MASK_BYTES", bound)
    with bounded_masks(model.config), Masks() as masks:
        yield masks
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("within", [lambda model: nullcontext(), lambda model: last_token_only(model.model)])
@pytest.mark.parametrize("name", DECODERS)
def test_rows_one_by_one_generate_the_same(name, within, monkeypatch):
    model = decoder(name)
    embeddings, mask = padded_prompts()
    expected = generate(model, embeddings, mask)
    with bounded(model, 3 * 9 * 9 - 1, monkeypatch) as masks, within(model):
        found = generate(model, embeddings, mask)
    assert torch.equal(found.sequences, expected.sequences)
    torch.testing.assert_close(torch.stack(found.logits), torch.stack(expected.logits), **SAME)
    assert masks.largest < 3 * 9 * 9


def test_a_mask_within_the_bound_is_made_as_ever(monkeypatch):
    model = decoder("qwen3")
    embeddings, mask = padded_prompts()
    with bounded(model, 3 * 9 * 9, monkeypatch) as masks:
        generate(model, embeddings, mask)
    assert masks.largest == 3 * 9 * 9


def test_without_padding_no_mask_is_made(monkeypatch):
    model = decoder("qwen3")
    embeddings, mask = padded_prompts()
    with bounded(model, 1, monkeypatch) as masks:
        found = generate(model, embeddings, torch.ones_like(mask))
    assert masks.largest < 3 * 9 * 9
    assert torch.equal(found.sequences, generate(model, embeddings, torch.ones_like(mask)).sequences)


def test_other_kernels_stay(monkeypatch):
    model = decoder("qwen3", attn_implementation="eager")
    with bounded_masks(model.config):
        assert model.config._attn_implementation == "eager"


@pytest.mark.parametrize("name", ["vanilla", "fastv", "pyramiddrop", "lvtc"])
def test_methods_answer_the_same(name, checkpoint_for, monkeypatch, same_answers):
    engine = open_engine(
        {**checkpoint_for(name), "method": name, "device": "cpu", "batch_size": 3}, show_progress=False
    ).engine
    pixels = np.random.default_rng(0).integers(0, 255, (112, 168, 3), dtype=np.uint8)
    settings = GenerationSettings(max_new_tokens=4)
    requests = [
        Request(f"a/test/{number}", (Message("user", (*media, Text("Which?"))),), generation=settings)
        for number, media in enumerate([(), (ImageInput(Image.fromarray(pixels)),)])
    ]
    expected = engine.answer(requests)
    monkeypatch.setattr(padded_prefill, "MASK_BYTES", 1)
    with Masks() as masks:
        found = engine.answer(requests)
    assert same_answers(found, expected)
    prompt = max(answer.account.text_tokens + answer.account.visual_tokens for answer in found)
    assert masks.largest < len(requests) * prompt**2
