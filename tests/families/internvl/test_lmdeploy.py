"""The names and shapes of weights that LMDeploy takes are those that are exported, none missing and none too many.

The table below is ours, read from LMDeploy 0.18.0's `pytorch/models/internvl.py`, `qwen2.py`, `qwen3.py`,
`qwen3_moe.py` and `llama.py`: an unknown name is a KeyError there, another shape an AssertionError, and a missing name
leaves memory that nobody has set. What it keeps joined (`qkv_proj`, `gate_up_proj`, the experts of a layer) it is given
in parts, which the table names; its `qkv` of the vision encoder is given joined.
"""

import json

import pytest
from safetensors.torch import load_file

from vico_eval.families.internvl.checkpoint import find_checkpoint, load_model
from vico_eval.families.internvl.released_layout import save_released
from vico_eval.tiny.tokenizer import build_tokenizer

Shapes = dict[str, list[int]]


def linear(name: str, inner: int, outer: int, *, bias: bool) -> Shapes:
    """A linear layer's weight, [outer, inner], and its bias."""
    return {f"{name}.weight": [outer, inner]} | ({f"{name}.bias": [outer]} if bias else {})


def layer_norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": [width], f"{name}.bias": [width]}


def of_vision(config: dict) -> Shapes:
    width, inner, patch = config["hidden_size"], config["intermediate_size"], config["patch_size"]
    shapes: Shapes = {
        "embeddings.class_embedding": [1, 1, width],
        "embeddings.position_embedding": [1, (config["image_size"] // patch) ** 2 + 1, width],
        "embeddings.patch_embedding.weight": [width, 3, patch, patch],
        "embeddings.patch_embedding.bias": [width],
    }
    for number in range(config["num_hidden_layers"]):
        layer = f"encoder.layers.{number}"
        shapes |= {f"{layer}.ls1": [width], f"{layer}.ls2": [width]}
        shapes |= linear(f"{layer}.attn.qkv", width, 3 * width, bias=config["qkv_bias"])
        shapes |= linear(f"{layer}.attn.proj", width, width, bias=True)
        if config["qk_normalization"]:
            shapes |= {f"{layer}.attn.{name}_norm.weight": [width] for name in "qk"}
        shapes |= linear(f"{layer}.mlp.fc1", width, inner, bias=True)
        shapes |= linear(f"{layer}.mlp.fc2", inner, width, bias=True)
        for norm in (f"{layer}.norm1", f"{layer}.norm2"):
            is_layer_norm = config["norm_type"] == "layer_norm"
            shapes |= layer_norm(norm, width) if is_layer_norm else {f"{norm}.weight": [width]}
    return shapes


def of_decoder(config: dict) -> Shapes:
    width, kind = config["hidden_size"], config["architectures"][0]
    shapes: Shapes = {"model.embed_tokens.weight": [config["vocab_size"], width], "model.norm.weight": [width]}
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = [config["vocab_size"], width]
    head = config.get("head_dim") or width // config["num_attention_heads"]
    queries, keys = head * config["num_attention_heads"], head * config["num_key_value_heads"]
    has_bias = kind == "Qwen2ForCausalLM" or config["attention_bias"]
    for number in range(config["num_hidden_layers"]):
        layer = f"model.layers.{number}"
        for name, size in (("q", queries), ("k", keys), ("v", keys)):
            shapes |= linear(f"{layer}.self_attn.{name}_proj", width, size, bias=has_bias)
        shapes |= linear(f"{layer}.self_attn.o_proj", queries, width, bias=has_bias and kind != "Qwen2ForCausalLM")
        if kind.startswith("Qwen3"):
            shapes |= {f"{layer}.self_attn.{name}_norm.weight": [head] for name in "qk"}
        shapes |= {f"{layer}.{name}_layernorm.weight": [width] for name in ("input", "post_attention")}
        if kind == "Qwen3MoeForCausalLM":
            shapes[f"{layer}.mlp.gate.weight"] = [config["num_experts"], width]
            for expert in range(config["num_experts"]):
                shapes |= gated(f"{layer}.mlp.experts.{expert}", width, config["moe_intermediate_size"])
        else:
            shapes |= gated(f"{layer}.mlp", width, config["intermediate_size"])
    return shapes


def gated(name: str, width: int, inner: int) -> Shapes:
    return {
        f"{name}.gate_proj.weight": [inner, width],
        f"{name}.up_proj.weight": [inner, width],
        f"{name}.down_proj.weight": [width, inner],
    }


def of_flash(vision: int, decoder: int, joined: int) -> Shapes:
    """`mlp2`, and the two halves of the router, for the widths of both models and of a compressed tile's tokens."""
    shapes = layer_norm("mlp2.0", joined) | linear("mlp2.1", joined, 2 * decoder, bias=True)
    shapes |= linear("mlp2.4", 2 * decoder, 2 * decoder, bias=True) | linear("mlp2.7", 2 * decoder, decoder, bias=True)
    shapes["pooling_before_gating.query_token"] = [1, vision]
    for block in (1, 2, 3, 4):
        attention = f"pooling_before_gating.attn{block}"
        shapes |= {f"{attention}.in_proj_weight": [3 * vision, vision], f"{attention}.in_proj_bias": [3 * vision]}
        shapes |= linear(f"{attention}.out_proj", vision, vision, bias=True)
        shapes |= layer_norm(f"pooling_before_gating.norm{block}", vision)
        shapes |= linear(f"gating.block{block}.0", vision, 4 * vision, bias=True)
        shapes |= linear(f"gating.block{block}.3", 4 * vision, vision, bias=True)
        shapes |= layer_norm(f"gating.block{block}.5", vision)
    return shapes | layer_norm("gating.gate.0", vision) | linear("gating.gate.1", vision, 2, bias=True)


def taken_by_lmdeploy(config: dict) -> Shapes:
    """Shape by name of all weights that LMDeploy's `InternVLChatModel` has, for the content of `config.json`."""
    vision, decoder = config["vision_config"]["hidden_size"], config["llm_config"]["hidden_size"]
    side = int(1 / config["downsample_ratio"])
    shapes = {f"vision_model.{name}": shape for name, shape in of_vision(config["vision_config"]).items()}
    shapes |= {f"language_model.{name}": shape for name, shape in of_decoder(config["llm_config"]).items()}
    shapes |= layer_norm("mlp1.0", vision * side**2)
    shapes |= linear("mlp1.1", vision * side**2, decoder, bias=True) | linear("mlp1.3", decoder, decoder, bias=True)
    if config.get("flash_mode") is not None:
        shapes |= of_flash(vision, decoder, vision * side**4)
    return shapes


def assert_is_taken(folder):
    config = json.loads((folder / "config.json").read_text())
    exported = {name: list(tensor.shape) for name, tensor in load_file(folder / "model.safetensors").items()}
    assert exported == taken_by_lmdeploy(config)
    # What its constructor and its vision preprocessing read of config.json, without a default.
    assert config["architectures"] == ["InternVLChatModel"]
    assert config["select_layer"] == -1
    assert config["dynamic_image_size"] is True
    assert config["force_image_size"] == config["vision_config"]["image_size"]
    flash = {name for name in config if "flash" in name}
    assert flash in (set(), {"flash_mode", "flash_relative_threshold", "flash_absolute_threshold"})


@pytest.mark.parametrize(
    ("decoder", "vision", "with_flash"),
    [
        ("qwen3", "300m", True),
        ("qwen3_moe", "6b", True),
        ("qwen3", "300m", False),
        ("qwen2", "300m", False),
        ("qwen2-tied", "6b", True),
        ("llama", "6b", False),
    ],
)
def test_lmdeploy_takes_every_exported_weight_and_misses_none(layouts, tmp_path, decoder, vision, with_flash):
    layouts.build_released(tmp_path / "released", decoder, vision, flash=with_flash)
    checkpoint = find_checkpoint(str(tmp_path / "released"))
    checkpoint.config.image_token_id = None
    save_released(load_model(checkpoint), build_tokenizer().save_pretrained, tmp_path / "out")
    assert_is_taken(tmp_path / "out")


def test_lmdeploy_takes_the_built_in_checkpoint(tmp_path):
    save_released(load_model(find_checkpoint("vico-tiny")), build_tokenizer().save_pretrained, tmp_path / "out")
    assert_is_taken(tmp_path / "out")
