"""What is read from the config.json of each layout, and what is refused."""

import copy
import json

import pytest
import torch
from transformers import AutoConfig

from vico_eval.errors import CheckpointError, ConfigError
from vico_eval.families.internvl.config import VicoInternVLConfig, from_checkpoint_config
from vico_eval.methods.registry import build
from vico_eval.methods.shared.thresholds import check_thresholds
from vico_eval.methods.vico import compress_tiles

NO_WEIGHTS = frozenset()
FLASH_WEIGHTS = frozenset({"mlp2.0.weight", "gating.gate.1.weight", "pooling_before_gating.query_token"})
HEAD = frozenset({"language_model.lm_head.weight"})

# Keys that older releases wrote for every nested configuration, generation settings included.
LEGACY = {
    "_name_or_path": "./pretrained/Qwen2.5-7B-Instruct",
    "_attn_implementation_autoset": True,
    "add_cross_attention": False,
    "attn_implementation": "flash_attention_2",
    "bad_words_ids": None,
    "chunk_size_feed_forward": 0,
    "diversity_penalty": 0.0,
    "do_sample": False,
    "id2label": {"0": "LABEL_0", "1": "LABEL_1"},
    "is_decoder": False,
    "max_length": 20,
    "moe_config": None,
    "num_beams": 1,
    "output_attentions": False,
    "pruned_heads": {},
    "return_dict": True,
    "temperature": 1.0,
    "tf_legacy_loss": False,
    "tie_encoder_decoder": False,
    "tokenizer_class": None,
    "top_k": 50,
    "torchscript": False,
    "transformers_version": "4.37.2",
    "use_bfloat16": True,
}


@pytest.fixture
def released(layouts):
    """A released config.json around qwen3 and the 300M encoder, updated."""

    def values(decoder="qwen3", vision="300m", **changed):
        return layouts.released_config(layouts.DECODERS[decoder], layouts.VISIONS[vision]) | changed

    return values


def test_released_settings(released):
    values = released() | {
        "max_dynamic_patch": 6,
        "min_dynamic_patch": 2,
        "use_thumbnail": False,
        "template": "Hermes-2",
        "system_message": "Be brief.",
        "ps_version": "v1",
        "torch_dtype": "bfloat16",
    }
    config = from_checkpoint_config(values, NO_WEIGHTS)
    assert (config.min_tiles, config.max_tiles, config.use_thumbnail) == (2, 6, False)
    assert (config.template, config.system_message, config.ps_version) == ("Hermes-2", "Be brief.", "v1")
    assert config.dtype == torch.bfloat16
    assert (config.tile_size, config.num_high_tokens, config.num_low_tokens) == (56, 4, 1)


def test_a_448_px_tile_takes_256_or_64_tokens(released, layouts):
    values = released(vision_config=layouts.VISIONS["300m"] | {"image_size": 448}, force_image_size=448)
    config = from_checkpoint_config(values, FLASH_WEIGHTS)
    assert (config.num_high_tokens, config.num_low_tokens) == (256, 64)


@pytest.mark.parametrize("scaling", [{"type": "dynamic", "factor": 2.0}, {"rope_type": "dynamic", "factor": 2.0}])
def test_position_settings_of_the_decoder(released, layouts, scaling):
    decoder = layouts.DECODERS["qwen2"] | {"rope_theta": 1000000.0, "rope_scaling": scaling}
    rope = from_checkpoint_config(released(llm_config=decoder), NO_WEIGHTS).text_config.rope_parameters
    assert (rope["rope_theta"], rope["rope_type"], rope["factor"]) == (1000000.0, "dynamic", 2.0)


def test_legacy_keys_change_nothing(released, layouts):
    plain = from_checkpoint_config(released("qwen2"), NO_WEIGHTS).text_config
    legacy = layouts.DECODERS["qwen2"] | LEGACY
    found = from_checkpoint_config(released(llm_config=legacy), NO_WEIGHTS).text_config
    for name in ("hidden_size", "num_hidden_layers", "rope_parameters", "eos_token_id", "tie_word_embeddings", "dtype"):
        assert getattr(found, name) == getattr(plain, name), name


@pytest.mark.parametrize(
    ("vision", "norm", "qk_norm", "bias"), [("300m", "layer_norm", False, True), ("6b", "rms_norm", True, False)]
)
def test_vision_settings(released, vision, norm, qk_norm, bias):
    config = from_checkpoint_config(released(vision=vision), NO_WEIGHTS).vision_config
    assert (config.norm_type, config.use_qk_norm, config.attention_bias) == (norm, qk_norm, bias)


@pytest.mark.parametrize(
    ("quantised", "name"),
    [
        ({"quant_method": "awq", "bits": 4}, "awq"),
        ({"quant_method": "gptq", "bits": 4}, "gptq"),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "bitsandbytes"),
        ({"load_in_4bit": True}, "bitsandbytes"),
        ({"bits": 4}, "unnamed method"),
    ],
)
@pytest.mark.parametrize("place", ["", "llm_config.", "vision_config."])
def test_quantised_weights_are_called_that(released, quantised, name, place):
    values = copy.deepcopy(released())
    (values[place[:-1]] if place else values)["quantization_config"] = quantised
    with pytest.raises(CheckpointError, match=rf"quantised \({name}: {place}quantization_config in config.json"):
        from_checkpoint_config(values, NO_WEIGHTS)


@pytest.mark.parametrize("nothing", [None, {}])
def test_an_empty_quantisation_is_none(released, nothing):
    assert from_checkpoint_config(released(quantization_config=nothing), NO_WEIGHTS).text_config.model_type == "qwen3"


def test_parts_are_read_off_the_weights(released):
    promised = from_checkpoint_config(released(flash_mode=True), NO_WEIGHTS)
    assert promised.parts == {}
    flash = from_checkpoint_config(released(), FLASH_WEIGHTS)
    assert set(flash.parts) == {"low_connector", "router"}


def test_thresholds_of_a_flash_checkpoint(released):
    default = from_checkpoint_config(released(), FLASH_WEIGHTS)
    assert default.parts["router"] == {"relative_threshold": 0.1, "absolute_threshold": 0.5, "image_threshold": None}
    own = from_checkpoint_config(released(flash_relative_threshold=0.3, flash_absolute_threshold=0.7), FLASH_WEIGHTS)
    assert (own.parts["router"]["relative_threshold"], own.parts["router"]["absolute_threshold"]) == (0.3, 0.7)


@pytest.mark.parametrize(("weights", "tied"), [(NO_WEIGHTS, True), (HEAD, False)])
def test_released_decoder_is_tied_unless_it_has_a_head(released, weights, tied):
    config = from_checkpoint_config(released("qwen2-tied"), weights)
    assert config.text_config.tie_word_embeddings is tied


def test_our_config_survives_saving(released, tmp_path):
    config = from_checkpoint_config(released("qwen3_moe", "6b", flash_relative_threshold=0.2), FLASH_WEIGHTS)
    config.save_pretrained(tmp_path)
    again = from_checkpoint_config(json.loads((tmp_path / "config.json").read_text()), NO_WEIGHTS)
    assert again.to_dict() == config.to_dict()
    assert type(AutoConfig.from_pretrained(tmp_path)) is VicoInternVLConfig


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model_type": "llava"}, r"model_type 'llava'; expected one of vico_internvl, internvl_chat, internvl"),
        ({"model_type": None}, r"model_type None"),
        ({"select_layer": -4}, r"select_layer -4; supported is -1"),
        ({"ps_version": "v3"}, r"ps_version 'v3'; supported is 'v2' or 'v1'"),
        ({"force_image_size": 224}, r"force_image_size 224; supported is 56"),
        ({"dynamic_image_size": False}, r"dynamic_image_size False; supported is True"),
        ({"pad2square": True}, r"pad2square True; supported is False"),
        ({"image_fold": 2}, r"image_fold 2; supported is None"),
        ({"min_dynamic_patch": 8, "max_dynamic_patch": 6}, r"at least 8 and at most 6 tiles"),
        ({"min_dynamic_patch": 0}, r"at least 0 and at most 12 tiles"),
        ({"max_dynamic_patch": None}, r"at least 1 and at most None tiles"),
        (
            {"flash_absolute_threshold": 1.5},
            r"absolute_threshold 1\.5 for the router; expected a probability",
        ),
        (
            {"flash_relative_threshold": -0.1},
            r"relative_threshold -0\.1 for the router; expected a probability",
        ),
    ],
)
def test_refused_settings(released, changed, message):
    with pytest.raises(CheckpointError, match=message):
        from_checkpoint_config(released(**changed), FLASH_WEIGHTS)


@pytest.mark.parametrize(
    ("architecture", "model_type"),
    [("Phi3ForCausalLM", "phi3"), ("GptOssForCausalLM", "gpt_oss"), ("InternLM3ForCausalLM", "internlm3")],
)
def test_unsupported_decoder_is_named(released, architecture, model_type):
    values = released(llm_config={"architectures": [architecture], "model_type": model_type})
    with pytest.raises(CheckpointError, match=rf"'{architecture}' \(model_type '{model_type}'\); supported are qwen3"):
        from_checkpoint_config(values, NO_WEIGHTS)


@pytest.mark.parametrize("left_out", ["llm_config", "vision_config"])
def test_released_config_without_a_part(released, left_out):
    values = released()
    del values[left_out]
    with pytest.raises(CheckpointError, match="no llm_config or no vision_config"):
        from_checkpoint_config(values, NO_WEIGHTS)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"vision_feature_layer": -2}, "vision_feature_layer -2; supported is -1"),
        ({"vision_feature_select_strategy": "full"}, "vision_feature_select_strategy 'full'; supported is 'default'"),
        ({"projector_hidden_act": "relu"}, "projector_hidden_act 'relu'; supported is 'gelu'"),
        ({"text_config": {"model_type": "mistral", "architectures": ["MistralForCausalLM"]}}, "'MistralForCausalLM'"),
        ({"text_config": {"model_type": "phi3"}}, "language model is 'phi3'"),
    ],
)
def test_refused_settings_of_the_hf_layout(changed, message):
    values = {"model_type": "internvl", "text_config": {"model_type": "qwen2"}, "vision_config": {}} | changed
    with pytest.raises(CheckpointError, match=message):
        from_checkpoint_config(values, NO_WEIGHTS)


@pytest.mark.parametrize(("name", "value"), [("dynamic_image_size", False), ("pad2square", True)])
def test_ways_to_cut_images_that_are_refused_in_every_layout(released, name, value):
    ours = from_checkpoint_config(released(), NO_WEIGHTS).to_dict()
    hf = {"model_type": "internvl", "text_config": {"model_type": "qwen2"}, "vision_config": {}}
    for values in (ours, hf):
        from_checkpoint_config(values, NO_WEIGHTS)
        with pytest.raises(CheckpointError, match=f"{name} {value}; supported is {not value}"):
            from_checkpoint_config(values | {name: value}, NO_WEIGHTS)


def test_hf_config_without_a_part():
    with pytest.raises(CheckpointError, match="no text_config or no vision_config"):
        from_checkpoint_config({"model_type": "internvl", "vision_config": {}}, NO_WEIGHTS)


@pytest.mark.parametrize("value", [-0.01, 1.01, float("nan")])
def test_thresholds_are_probabilities(value):
    with pytest.raises(ConfigError, match=r"absolute_threshold is .*; expected a probability in \[0, 1\]"):
        check_thresholds(None, value)
    with pytest.raises(ConfigError, match="relative_threshold is"):
        compress_tiles(torch.tensor([0.2, 0.8]), value, 0.5)
    with pytest.raises(ConfigError, match="absolute_threshold is"):
        build("vico", {"absolute_threshold": value})
    with pytest.raises(ConfigError, match="absolute_threshold is"):
        build("image_vir", {"absolute_threshold": value})
    check_thresholds(0.0, 1.0)


def test_flags_of_older_versions_are_parts():
    flags = {"has_low_connector": True, "has_router": True, "has_image_router": True, "connector": "mlp", "lvtc": None}
    thresholds = {"flash_relative_threshold": None, "flash_absolute_threshold": 0.7, "image_absolute_threshold": 0.4}
    config = VicoInternVLConfig(**flags, **thresholds)
    router = {"relative_threshold": None, "absolute_threshold": 0.7, "image_threshold": 0.4}
    assert config.parts == {"low_connector": {}, "router": router, "image_router": {}}
    assert not hasattr(config, "has_router")
    # Thresholds without a router are nobody's.
    assert VicoInternVLConfig(has_router=False, connector="pvtc", **thresholds).parts == {"pvtc": {}}
    assert VicoInternVLConfig(**config.to_dict()).parts == config.parts


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"resampler": {}}, "unknown parts of a checkpoint: 'resampler'; known are low_connector, router"),
        ({"router": {"threshold": 0.5}}, "part 'router' has no setting threshold; it has relative_threshold"),
    ],
)
def test_a_part_that_nobody_knows_is_refused(parts, message):
    with pytest.raises(ConfigError, match=message):
        VicoInternVLConfig(parts=parts)
    values = VicoInternVLConfig().to_dict() | {"parts": parts}
    with pytest.raises(CheckpointError, match=message):
        from_checkpoint_config(values, frozenset())
