"""The model reproduces what the code released with InternVL3.5-Flash computes (tests/golden/internvl_flash)."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from vico_eval.families.internvl.checkpoint import find_checkpoint, load_model
from vico_eval.methods.vico import compress_tiles

GOLDEN = Path(__file__).parents[2] / "golden" / "internvl_flash"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())
META = json.loads((GOLDEN / "meta.json").read_text())
IMG, PAD = META["token_ids"]["<IMG_CONTEXT>"], META["token_ids"]["pad"]
FULL, LOW = META["tokens_per_tile"]["full"], META["tokens_per_tile"]["compressed"]
WITH_TILES = [name for name, prompt in EXPECTED["prompts"].items() if prompt["tiles"]]

GREEDY = {"max_new_tokens": META["max_new_tokens"], "do_sample": False, "pad_token_id": PAD}

# A wrong LayerNorm epsilon or an approximate GELU is off by more than this; a rewrite in another order of sums by less.
STAGE = {"atol": 2e-5, "rtol": 1e-5}
LOGITS = {"atol": 1e-4, "rtol": 1e-4}


@pytest.fixture(scope="module")
def expected():
    return load_file(GOLDEN / "expected.safetensors")


@pytest.fixture(scope="module")
def model():
    checkpoint = find_checkpoint(str(GOLDEN / "checkpoint"))
    checkpoint.config.image_token_id = IMG
    return load_model(checkpoint)


@pytest.fixture(scope="module")
def prompts(model):
    """By prompt: ids [N], and the vision tokens of its tiles."""
    inputs = load_file(GOLDEN / "inputs.safetensors")
    out = {}
    for name, prompt in EXPECTED["prompts"].items():
        blocks = inputs.get(f"{name}.blocks")
        vit_tokens = None
        if prompt["tiles"]:
            pixels = (blocks.float() / 64).repeat_interleave(14, -1).repeat_interleave(14, -2)
            with torch.inference_mode():
                vit_tokens = model.encode_tiles(pixels)
        out[name] = (inputs[f"{name}.input_ids"], vit_tokens)
    return out


@pytest.mark.parametrize("name", WITH_TILES)
def test_every_stage_up_to_the_visual_tokens(model, prompts, expected, name):
    _, vit_tokens = prompts[name]
    with torch.inference_mode():
        found = {
            "vit_first8": vit_tokens[:, :8],
            "vit_last8": vit_tokens[:, -8:],
            "vit_mean": vit_tokens.mean(dim=1),
            "pooled": model.router.pool(vit_tokens),
            "gate": model.router(vit_tokens).softmax(dim=-1),
            "embeds_64": model.connector_low(vit_tokens),
            "embeds_256": model.connector_high(vit_tokens),
        }
    for stage, value in found.items():
        torch.testing.assert_close(
            value, expected[f"{name}.{stage}"], **STAGE, msg=lambda text, stage=stage: f"{stage}: {text}"
        )


@pytest.mark.parametrize("case", EXPECTED["rule"])
def test_the_selection_rule_alone(case):
    p_compress = torch.tensor(case["gate0"], dtype=getattr(torch, case["dtype"]))
    found = compress_tiles(p_compress, case["flash_relative_threshold"], case["flash_absolute_threshold"])
    assert found.tolist() == case["compress"]


def routed(case, model, prompts):
    """The shortened prompt of a case, its visual tokens, and which tiles were compressed."""
    ids, vit_tokens = prompts[case["prompt"]]
    if vit_tokens is None:
        return ids, torch.zeros(0, 64), []
    with torch.inference_mode():
        if case["flash_mode"]:
            compressed = compress_tiles(
                model.router.p_compress(vit_tokens), case["flash_relative_threshold"], case["flash_absolute_threshold"]
            )
        else:
            compressed = torch.zeros(len(vit_tokens), dtype=torch.bool)
        tokens, counts = model.visual_tokens(vit_tokens, compressed)
    keep = torch.ones(len(ids), dtype=torch.bool)
    places = (ids == IMG).nonzero().flatten().view(-1, FULL)
    assert counts.tolist() == [LOW if low else FULL for low in compressed]
    keep[places[compressed][:, LOW:].flatten()] = False
    return ids[keep], tokens, compressed.tolist()


@pytest.mark.parametrize("case", EXPECTED["cases"], ids=lambda case: case["name"])
def test_mask_length_logits_and_greedy_tokens(case, model, prompts, expected):
    ids, tokens, compressed = routed(case, model, prompts)
    if compressed:
        assert compressed == case["compress"]
    assert len(ids) == case["llm_sequence_length"]
    with torch.inference_mode():
        embeddings = model.embed(ids[None], tokens)
        logits = model.language_model(inputs_embeds=embeddings, logits_to_keep=1).logits[0, -1]
    torch.testing.assert_close(logits, expected[f"{case['name']}.logits"], **LOGITS)
    generated = model.generate(ids[None], tokens, torch.ones_like(ids[None]), **GREEDY)
    assert generated[0].tolist() == case["greedy_tokens"]


@pytest.mark.parametrize("setting", ["rel0.1_abs0.5", "off"])
def test_all_prompts_in_one_padded_batch(setting, model, prompts):
    cases = [case for case in EXPECTED["cases"] if case["name"].split(".", 1)[1] == setting]
    assert len(cases) == len(EXPECTED["prompts"])
    rows = [routed(case, model, prompts) for case in cases]
    longest = max(len(ids) for ids, _, _ in rows)
    batch = torch.full((len(rows), longest), PAD)
    mask = torch.zeros_like(batch)
    for row, (ids, _, _) in enumerate(rows):
        batch[row, longest - len(ids) :] = ids
        mask[row, longest - len(ids) :] = 1
    visual = torch.cat([tokens for _, tokens, _ in rows])
    generated = model.generate(batch, visual, mask, **GREEDY)
    for case, tokens in zip(cases, generated.tolist(), strict=True):
        assert tokens == case["greedy_tokens"], case["name"]
