"""Every layout a checkpoint comes in gives the numbers of the modules it was made from."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import Qwen3MoeConfig

from vico_eval.families.internvl.checkpoint import find_checkpoint, load_model
from vico_eval.families.internvl.weight_names import expert_problems

# Logits are of order 1. The same sums in another order differ by 1e-5; one exchanged weight by more than 1e-2.
LOGITS = {"atol": 1e-4, "rtol": 1e-4}


def load(layouts, folder, **arguments):
    checkpoint = find_checkpoint(str(folder))
    checkpoint.config.image_token_id = layouts.IMAGE_TOKEN_ID
    return load_model(checkpoint, **arguments)


@torch.inference_mode()
def logits(layouts, model, pixels, compressed):
    counts = [model.num_low_tokens if low else model.num_high_tokens for low in compressed]
    return model(layouts.prompt_ids(sum(counts)), pixels, torch.tensor(compressed)).logits


@pytest.mark.parametrize("vision", ["300m", "6b"])
@pytest.mark.parametrize("decoder", ["qwen2", "qwen2-tied", "qwen3", "qwen3_moe", "llama"])
def test_released_flash_layout(layouts, pixels, tmp_path, decoder, vision):
    reference = layouts.build_released(tmp_path, decoder, vision, flash=True)
    model = load(layouts, tmp_path)
    for compressed in ([False, False], [True, False], [True, True]):
        expected = layouts.reference_logits(reference, pixels, compressed)
        torch.testing.assert_close(logits(layouts, model, pixels, compressed), expected, **LOGITS)


def test_released_router(flash, layouts, pixels):
    model = load(layouts, flash.folder)
    with torch.inference_mode():
        tokens = flash.vision(pixel_values=pixels).last_hidden_state[:, 1:]
        query = flash.pooling.query_token.expand(2, 1, -1)
        for block in (1, 2, 2, 2):  # the released code repeats the second block and never runs 3 and 4
            attended, _ = flash.pooling[f"attn{block}"](query, tokens, tokens)
            query = flash.pooling[f"norm{block}"](attended)
        hidden = query[:, 0]
        for block in (1, 2, 3, 4):
            hidden = hidden + flash.gating[f"block{block}"](hidden)
        expected = flash.gating["gate"](hidden).softmax(dim=-1)[:, 0]
        found = model.router.p_compress(model.encode_tiles(pixels))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert ((expected > 0.01) & (expected < 0.99)).all(), "a saturated router would hide mistakes"


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_released_layout_without_flash(layouts, pixels, tmp_path, version):
    reference = layouts.build_released(tmp_path, "llama", ps_version=version)
    model = load(layouts, tmp_path)
    assert model.connector_low is None
    assert model.router is None
    expected = layouts.reference_logits(reference, pixels, [False, False], version=version)
    found = logits(layouts, model, pixels, [False, False])
    torch.testing.assert_close(found, expected, **LOGITS)
    other = layouts.reference_logits(reference, pixels, [False, False], version={"v1": "v2", "v2": "v1"}[version])
    assert (found - other).abs().max() > 1e-2


@pytest.mark.parametrize("early_names", [True, False], ids=["before-4.53", "since-4.53"])
@pytest.mark.parametrize("decoder", ["qwen2", "qwen2-tied", "qwen3", "qwen3_moe", "llama"])
def test_hf_layout(layouts, pixels, tmp_path, decoder, early_names):
    theirs = layouts.build_hf(tmp_path, decoder, "6b", early_names=early_names, tie_word_embeddings="tied" in decoder)
    names = set(load_file(tmp_path / "model.safetensors"))
    prefix = "" if early_names else "model."
    assert f"{prefix}multi_modal_projector.linear_1.weight" in names
    assert f"{prefix}vision_tower.embeddings.cls_token" in names
    model = load(layouts, tmp_path)
    with torch.inference_mode():
        expected = theirs(input_ids=layouts.prompt_ids(8), pixel_values=pixels).logits
    torch.testing.assert_close(logits(layouts, model, pixels, [False, False]), expected, **LOGITS)


@pytest.mark.parametrize(
    ("outer", "inner", "tied"),
    [
        ({}, "qwen3", True),
        ({"tie_word_embeddings": True}, "qwen3", True),
        ({"tie_word_embeddings": False}, "qwen3", False),
    ],
    ids=["default", "outer", "none"],
)
def test_hf_layout_ties_by_the_outer_setting(layouts, pixels, tmp_path, outer, inner, tied):
    theirs = layouts.build_hf(tmp_path, inner, **outer)
    assert any("lm_head" in name for name in load_file(tmp_path / "model.safetensors")) is not tied
    model = load(layouts, tmp_path)
    assert (model.language_model.lm_head.weight is model.get_input_embeddings().weight) is tied
    with torch.inference_mode():
        expected = theirs(input_ids=layouts.prompt_ids(8), pixel_values=pixels).logits
    torch.testing.assert_close(logits(layouts, model, pixels, [False, False]), expected, **LOGITS)


def test_a_head_of_its_own_counts_though_the_config_says_tied(layouts, pixels, tmp_path):
    # As in checkpoints converted to -HF, whose outer config says tied over a decoder that is not.
    theirs = layouts.build_hf(tmp_path, "qwen3", tie_word_embeddings=False)
    file = tmp_path / "config.json"
    file.write_text(file.read_text().replace('"tie_word_embeddings": false', '"tie_word_embeddings": true'))
    model = load(layouts, tmp_path)
    with torch.inference_mode():
        expected = theirs(input_ids=layouts.prompt_ids(8), pixel_values=pixels).logits
    torch.testing.assert_close(logits(layouts, model, pixels, [False, False]), expected, **LOGITS)


@pytest.mark.parametrize("decoder", ["qwen2-tied", "qwen3_moe"])
def test_saving_writes_our_names_and_reloads_to_the_same_tensors(layouts, tmp_path, decoder):
    layouts.build_released(tmp_path / "released", decoder, "6b", flash=True)
    model = load(layouts, tmp_path / "released")
    model.save_pretrained(tmp_path / "ours")
    names = set(load_file(tmp_path / "ours" / "model.safetensors"))
    assert names <= set(model.state_dict())
    assert {name.split(".")[0] for name in names} == {
        *("vision_tower", "connector_high", "connector_low", "router", "language_model")
    }
    again = find_checkpoint(str(tmp_path / "ours"))
    assert again.config.model_type == "vico_internvl"
    assert again.config.image_token_id == layouts.IMAGE_TOKEN_ID
    reloaded = load_model(again).state_dict()
    expected = model.state_dict()
    assert reloaded.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(reloaded[name], tensor), name


def test_every_expert_is_accounted_for():
    config = Qwen3MoeConfig(num_experts=2, hidden_size=6, moe_intermediate_size=4)
    prefix = "language_model.model.layers.3.mlp.experts."
    shapes = {
        f"{prefix}{expert}.{part}.weight": shape
        for expert in (0, 1)
        for part, shape in (("gate_proj", [4, 6]), ("up_proj", [4, 6]), ("down_proj", [6, 4]))
    }
    assert expert_problems(shapes, config) == []
    assert expert_problems({"model.layers.3.mlp.experts.down_proj": [2, 6, 4]}, config) == []  # stacked already
    missing, extra, wrong = f"{prefix}1.up_proj.weight", f"{prefix}2.up_proj.weight", f"{prefix}0.down_proj.weight"
    del shapes[missing]
    shapes |= {extra: [4, 6], wrong: [6, 5]}
    assert expert_problems(shapes, config) == [
        f"missing: {missing}",
        f"unexpected: {extra}",
        f"{wrong} has shape [6, 5], expected [6, 4]",
    ]
