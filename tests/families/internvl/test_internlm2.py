"""InternLM2 as transformers' Llama: every number of key-value heads, biases, positions, shards, and what is refused.

The reference is Llama itself: its weights are fused here group by group, written down a second time.
"""

import json

import pytest
import torch
from safetensors.torch import load_file

from vico_eval.errors import CheckpointError
from vico_eval.families.internvl.checkpoint import find_checkpoint, load_model
from vico_eval.families.internvl.config import from_checkpoint_config
from vico_eval.families.internvl.released_layout import save_released
from vico_eval.tiny.tokenizer import build_tokenizer

LOGITS = {"atol": 1e-4, "rtol": 1e-4}
SAME = {
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attention.wo": "self_attn.o_proj",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w2": "mlp.down_proj",
    "feed_forward.w3": "mlp.up_proj",
}


def fused(queries, keys, values, num_groups):
    """Rows group by group: the group's query heads, its key, its value."""
    rows = []
    for query, key, value in zip(*(part.chunk(num_groups) for part in (queries, keys, values)), strict=True):
        rows += [query, key, value]
    return torch.cat(rows)


def internlm2_tensors(llama):
    """The weights of a Llama under InternLM2's names."""
    state, config = llama.state_dict(), llama.config
    tensors = {
        "model.tok_embeddings.weight": state["model.embed_tokens.weight"],
        "model.norm.weight": state["model.norm.weight"],
        "output.weight": state["lm_head.weight"],
    }
    for layer in range(config.num_hidden_layers):
        prefix = f"model.layers.{layer}."
        for kind in ("weight", "bias") if config.attention_bias else ("weight",):
            parts = [state[f"{prefix}self_attn.{part}_proj.{kind}"] for part in "qkv"]
            tensors[f"{prefix}attention.wqkv.{kind}"] = fused(*parts, config.num_key_value_heads)
        for theirs, ours in SAME.items():
            for kind in ("weight", "bias"):
                if f"{prefix}{ours}.{kind}" in state:
                    tensors[f"{prefix}{theirs}.{kind}"] = state[f"{prefix}{ours}.{kind}"]
    return {f"language_model.{name}": tensor for name, tensor in tensors.items()}


@pytest.fixture
def build(layouts, tmp_path):
    """Writes a checkpoint with an InternLM2 decoder; gives its folder and the Llama it was made from."""

    def write(*, kv_heads=2, bias=False, scaling=None, num_shards=1, replace=None, **changed):
        reference = layouts.build_released(tmp_path / "others", "llama")
        values = layouts.DECODERS["llama"] | {"num_key_value_heads": kv_heads, "rope_scaling": scaling}
        llama = layouts.reference_decoder(values | {"attention_bias": bias})
        tensors = {name: tensor for name, tensor in reference.tensors.items() if not name.startswith("language_model")}
        tensors |= internlm2_tensors(llama) | (replace or {})
        values |= {"model_type": "internlm2", "architectures": ["InternLM2ForCausalLM"], "bias": bias}
        del values["attention_bias"]
        config = layouts.released_config(values | changed, layouts.VISIONS["300m"], template="internlm2-chat")
        (tmp_path / "config.json").write_text(json.dumps(config))
        layouts.save_shards(
            tmp_path, {name: tensor for name, tensor in tensors.items() if tensor is not None}, num_shards
        )
        return tmp_path, llama

    return write


@torch.inference_mode()
def logits(decoder, length=24):
    return decoder(torch.arange(3, 3 + length)[None] % 59).logits


@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_logits_are_llamas(build, kv_heads, bias):
    folder, llama = build(kv_heads=kv_heads, bias=bias, num_shards=3)
    model = load_model(find_checkpoint(str(folder)))
    torch.testing.assert_close(logits(model.language_model), logits(llama), **LOGITS)


@pytest.mark.parametrize("scaling", [None, {"type": "linear", "factor": 2.0}, {"type": "dynamic", "factor": 2.0}])
def test_positions_are_scaled_as_in_the_config(build, scaling):
    folder, llama = build(scaling=scaling)
    model = load_model(find_checkpoint(str(folder)))
    found = logits(model.language_model)  # 24 tokens, 16 positions: dynamic scaling acts
    torch.testing.assert_close(found, logits(llama), **LOGITS)
    if scaling is not None:
        plain = llama.__class__(llama.config.__class__(**llama.config.to_dict() | {"rope_parameters": None}))
        plain.load_state_dict(llama.state_dict())
        assert (logits(plain.eval()) - found).abs().max() > 1e-2


@pytest.mark.parametrize("kv_heads", [1, 2])
def test_saved_in_our_own_layout_it_is_a_llama(build, tmp_path_factory, kv_heads):
    folder, llama = build(kv_heads=kv_heads, bias=True)
    ours = tmp_path_factory.mktemp("ours")
    load_model(find_checkpoint(str(folder))).save_pretrained(ours)
    names = set(load_file(ours / "model.safetensors"))
    assert "language_model.model.layers.1.self_attn.k_proj.bias" in names
    assert not any("wqkv" in name for name in names)
    checkpoint = find_checkpoint(str(ours))
    assert checkpoint.config.text_config.model_type == "llama"
    torch.testing.assert_close(logits(load_model(checkpoint).language_model), logits(llama), **LOGITS)


def test_exported_it_is_a_llama_in_the_released_layout(build, tmp_path_factory):
    folder, llama = build(bias=True, scaling={"type": "dynamic", "factor": 2.0})
    exported = tmp_path_factory.mktemp("exported") / "out"
    save_released(load_model(find_checkpoint(str(folder))), build_tokenizer().save_pretrained, exported)
    assert "language_model.model.layers.1.self_attn.k_proj.bias" in load_file(exported / "model.safetensors")
    values = json.loads((exported / "config.json").read_text())
    assert values["template"] == "internlm2-chat"
    assert values["llm_config"]["architectures"] == ["LlamaForCausalLM"]
    assert values["llm_config"]["rope_scaling"] == {"factor": 2.0, "rope_type": "dynamic", "type": "dynamic"}
    model = load_model(find_checkpoint(str(exported)))
    torch.testing.assert_close(logits(model.language_model), logits(llama), **LOGITS)


def test_bfloat16_is_cast_before_the_split(build):
    folder, _ = build()
    model = load_model(find_checkpoint(str(folder)), dtype="bfloat16")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


@pytest.fixture
def released(layouts):
    """The configuration of a whole checkpoint around an InternLM2 decoder, updated."""

    def values(**changed):
        decoder = {name: value for name, value in layouts.DECODERS["llama"].items() if name != "attention_bias"}
        decoder |= {"model_type": "internlm2", "architectures": ["InternLM2ForCausalLM"]}
        return layouts.released_config(decoder | changed, layouts.VISIONS["300m"])

    return values


def test_the_configuration_becomes_llamas(released):
    scaling = {"factor": 2.0, "type": "dynamic"}
    values = released(
        bias=False, rope_scaling=scaling, rope_theta=1000000, rms_norm_eps=1e-5, max_position_embeddings=32768
    )
    config = from_checkpoint_config(values, frozenset()).text_config
    assert (config.model_type, config.attention_bias, config.mlp_bias) == ("llama", False, False)
    assert config.rope_parameters == {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1000000.0}
    assert (config.num_key_value_heads, config.rms_norm_eps, config.max_position_embeddings) == (2, 1e-5, 32768)
    assert (config.vocab_size, config.hidden_size, config.intermediate_size) == (64, 32, 48)
    assert (config.bos_token_id, config.eos_token_id, config.tie_word_embeddings) == (1, 2, False)


def test_what_a_configuration_leaves_out_is_internlm2s_default(released):
    values = released()
    del values["llm_config"]["model_type"]  # some name the architecture only
    config = from_checkpoint_config(values, frozenset()).text_config
    assert config.attention_bias is True
    assert config.rope_parameters == {"rope_type": "default", "rope_theta": 10000.0}


def test_a_head_of_its_own_counts_though_the_config_says_tied(released):
    values = released(tie_word_embeddings=True)
    head = frozenset({"language_model.output.weight"})
    assert from_checkpoint_config(values, frozenset()).text_config.tie_word_embeddings is True
    assert from_checkpoint_config(values, head).text_config.tie_word_embeddings is False


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"rope_scaling": {"type": "yarn", "factor": 2.0}}, r"rope_scaling is .*'yarn'.*expected a type of linear or"),
        ({"rope_scaling": {"factor": 2.0}}, "expected a type of linear or dynamic"),
        ({"rope_pos_id_version": "v2pe_rnd"}, "rope_pos_id_version 'v2pe_rnd'; supported is 'default'"),
    ],
)
def test_refused_settings(released, changed, message):
    with pytest.raises(CheckpointError, match=message):
        from_checkpoint_config(released(**changed), frozenset())


@pytest.mark.parametrize(
    ("replace", "message"),
    [
        (
            {"attention.wqkv.weight": torch.zeros(32, 32)},  # the queries' rows alone
            r"layers\.0\.attention\.wqkv\.weight has shape \[32, 32\], expected \[64, 32\]",
        ),
        ({"attention.wqkv.weight": torch.zeros(65, 32)}, r"has shape \[65, 32\], expected \[64, 32\]"),
        ({"attention.wqkv.weight": None}, r"missing: .*self_attn\.k_proj\.weight.*q_proj\.weight.*v_proj\.weight"),
        ({"attention.wqkv.bias": torch.zeros(64)}, r"unexpected: .*layers\.0\.self_attn\.k_proj\.bias"),
        ({"attention.wo.weight": None}, r"missing: .*layers\.0\.self_attn\.o_proj\.weight"),
        ({"feed_forward.w2.weight": torch.zeros(32, 7)}, r"mlp\.down_proj\.weight has shape \[32, 7\]"),
    ],
)
def test_wrong_weights_are_named(build, replace, message):
    folder, _ = build(replace={f"language_model.model.layers.0.{name}": value for name, value in replace.items()})
    with pytest.raises(CheckpointError, match=message):
        load_model(find_checkpoint(str(folder)))


def test_a_bias_that_the_config_promises_is_missed(build):
    folder, _ = build(bias=False)
    file = folder / "config.json"
    file.write_text(file.read_text().replace('"bias": false', '"bias": true'))
    with pytest.raises(CheckpointError, match=r"missing: .*self_attn\.k_proj\.bias"):
        load_model(find_checkpoint(str(folder)))
