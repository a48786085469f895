"""Projector, decoder and whole model give what the code released with InternVL-X computes (tests/golden/internvl_x)."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from vico_eval.families.internvl.checkpoint import find_checkpoint, load_model

GOLDEN = Path(__file__).parents[2] / "golden" / "internvl_x"
PVTC = ("pvtc_16x16_r2", "pvtc_16x16_r4", "pvtc_8x8_r2")
DECODERS = ("internlm2_gqa", "internlm2_dynamic_ntk")

# A rewrite differs by 2e-6; a norm's epsilon of 1e-5 by 1.5e-4, windows or branches in another order by 4.
PROJECTOR = {"atol": 1e-5, "rtol": 0}
STAGE = {"atol": 5e-5, "rtol": 0}
LOGITS = {"atol": 1e-4, "rtol": 0}


def config_of(name):
    return json.loads((GOLDEN / name / "config.json").read_text())


def write(folder, layouts, config, tensors, num_shards=1):
    (folder / "config.json").write_text(json.dumps(config))
    layouts.save_shards(folder, tensors, num_shards)
    return folder


def write_around_decoder(folder, layouts, llm_config, decoder_tensors, num_shards=1):
    """A whole checkpoint whose other parts are random."""
    reference = layouts.build_released(folder / "others", "llama")
    others = {name: tensor for name, tensor in reference.tensors.items() if not name.startswith(("language", "mlp1"))}
    width = llm_config["hidden_size"]
    generator = torch.Generator().manual_seed(0)
    for name, shape in (("0", [128]), ("1", [width, 128]), ("3", [width, width])):
        others[f"mlp1.{name}.weight"] = torch.randn(*shape, generator=generator)
        others[f"mlp1.{name}.bias"] = torch.randn(shape[0], generator=generator)
    decoder = {f"language_model.{name}": tensor for name, tensor in decoder_tensors.items()}
    config = layouts.released_config(llm_config, layouts.VISIONS["300m"], template="internlm2-chat")
    return write(folder, layouts, config, others | decoder, num_shards)


def load(folder):
    return load_model(find_checkpoint(str(folder)))


@pytest.mark.parametrize("name", PVTC)
def test_the_projector_and_its_branches(name, layouts, tmp_path):
    sizes = config_of(name)
    tile_size = 14 * sizes["grid"]
    vision = layouts.VISIONS["300m"] | {"hidden_size": sizes["vit_hidden_size"], "image_size": tile_size}
    decoder = layouts.DECODERS["llama"] | {"hidden_size": sizes["llm_hidden_size"]}
    encoder, language_model = layouts.reference_vision(vision), layouts.reference_decoder(decoder)
    tensors = layouts.released_vision_tensors(encoder) | layouts.released_decoder_tensors(language_model)
    tensors |= {f"projector.{name}": value for name, value in load_file(GOLDEN / name / "pvtc.safetensors").items()}
    config = layouts.released_config(decoder, vision, downsample_ratio=sizes["downsample_ratio"])
    model = load(write(tmp_path, layouts, config, tensors))
    assert model.num_high_tokens == sizes["num_image_token"]
    io = load_file(GOLDEN / name / "io.safetensors")
    with torch.inference_mode():
        local, from_class = model.connector_high.branches(io["vit_features"])
        found = model.connector_high(io["vit_features"])
    torch.testing.assert_close(local, io["local_branch"].flatten(1, 2), **PROJECTOR)
    torch.testing.assert_close(from_class, io["global_branch"].flatten(1, 2), **PROJECTOR)
    torch.testing.assert_close(found, io["expected"].flatten(1, 2), **PROJECTOR)


@pytest.mark.parametrize("num_shards", [1, 4])
@pytest.mark.parametrize("name", DECODERS)
def test_the_decoder(name, num_shards, layouts, tmp_path):
    tensors = load_file(GOLDEN / name / "internlm2.safetensors")
    model = load(write_around_decoder(tmp_path, layouts, config_of(name), tensors, num_shards))
    io = load_file(GOLDEN / name / "io.safetensors")
    with torch.inference_mode():
        logits = model.language_model(io["input_ids"]).logits
    torch.testing.assert_close(logits, io["logits"], **LOGITS)


@pytest.fixture(scope="module", params=["released", "sharded", "saved by us"])
def model(request, layouts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    config = config_of("model")
    tensors = load_file(GOLDEN / "model" / "model.safetensors")
    write(folder, layouts, config, tensors, num_shards=5 if request.param == "sharded" else 1)
    checkpoint = find_checkpoint(str(folder))
    checkpoint.config.image_token_id = config["img_context_token_id"]
    model = load_model(checkpoint)
    if request.param == "saved by us":
        ours = tmp_path_factory.mktemp("ours")
        model.save_pretrained(ours)
        model = load(ours)
    return model


@pytest.fixture(scope="module")
def io():
    return load_file(GOLDEN / "model" / "io.safetensors")


class TestWholeModel:
    @pytest.mark.parametrize("prompt", ["p0", "p1"])
    def test_every_stage(self, model, io, prompt):
        ids = io[f"{prompt}.input_ids"]
        with torch.inference_mode():
            vit_tokens = model.encode_tiles(io[f"{prompt}.pixel_values_int8"].float() / 64)
            tokens, counts = model.visual_tokens(vit_tokens, torch.zeros(len(vit_tokens), dtype=torch.bool))
            logits = model.language_model(inputs_embeds=model.embed(ids, tokens)).logits[0, -1]
        torch.testing.assert_close(vit_tokens[0], io[f"{prompt}.vit_last_hidden_state_tile0"], **STAGE)
        expected = io[f"{prompt}.visual_tokens"]
        assert counts.tolist() == [expected.shape[1]] * len(expected)
        torch.testing.assert_close(tokens, expected.flatten(0, 1), **STAGE)
        torch.testing.assert_close(logits, io[f"{prompt}.last_logits"], **LOGITS)

    @pytest.mark.parametrize("prompt", ["p0", "p1"])
    def test_greedy_tokens(self, model, io, prompt):
        ids = io[f"{prompt}.input_ids"]
        with torch.inference_mode():
            vit_tokens = model.encode_tiles(io[f"{prompt}.pixel_values_int8"].float() / 64)
            tokens, _ = model.visual_tokens(vit_tokens, torch.zeros(len(vit_tokens), dtype=torch.bool))
        # No stop token, as in the reference.
        found = model.generate(ids, tokens, torch.ones_like(ids), max_new_tokens=8, do_sample=False, eos_token_id=-1)
        assert found[0].tolist() == io[f"{prompt}.greedy_tokens"].tolist()
