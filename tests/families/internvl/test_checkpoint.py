"""Loading from a folder: shards, dtypes, devices, tokenizers, and every way a checkpoint can be wrong."""

import json
import logging
import math
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from vico_eval.errors import CheckpointError, ConfigError
from vico_eval.families.internvl.checkpoint import find_checkpoint, load_model, load_tokenizer
from vico_eval.families.placement import check_attention, check_device
from vico_eval.paths import models_dir

LAYER = "vision_model.encoder.layers.0"


@torch.inference_mode()
def logits(layouts, model, pixels):
    """Logits of a prompt with one tile at full length and one compressed."""
    model.config.image_token_id = layouts.IMAGE_TOKEN_ID
    return model(layouts.prompt_ids(5), pixels, torch.tensor([False, True])).logits


@pytest.fixture
def spoken(caplog):
    """What transformers logs at WARNING and above, which does not reach the root logger."""
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    yield lambda: caplog.messages
    logger.removeHandler(caplog.handler)


@pytest.fixture(scope="module")
def expected(flash, layouts, pixels):
    return layouts.reference_logits(flash, pixels, [False, True])


class TestLoading:
    def test_shards(self, altered, layouts, pixels, expected):
        folder = altered(num_shards=5)
        assert len(list(Path(folder).glob("*.safetensors"))) == 5
        found = logits(layouts, load_model(find_checkpoint(folder)), pixels)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)

    def test_shards_of_our_own_layout(self, flash, layouts, pixels, expected, tmp_path):
        load_model(find_checkpoint(str(flash.folder))).save_pretrained(tmp_path, max_shard_size="100KB")
        assert len(list(tmp_path.glob("*.safetensors"))) > 2
        found = logits(layouts, load_model(find_checkpoint(str(tmp_path))), pixels)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)

    @pytest.mark.parametrize("device_map", ["auto", {"": "cpu"}, {"vision_tower": "cpu", "": "cpu"}])
    def test_device_map(self, flash, layouts, pixels, expected, device_map):
        model = load_model(find_checkpoint(str(flash.folder)), device_map=device_map)
        torch.testing.assert_close(logits(layouts, model, pixels), expected, atol=1e-4, rtol=1e-4)

    def test_a_device_map_never_cuts_through_a_layer(self, flash):
        kept_whole = set(load_model(find_checkpoint(str(flash.folder)))._no_split_modules)
        assert {"InternVLVisionLayer", "Qwen3DecoderLayer", "HighConnector", "LowConnector", "Router"} <= kept_whole

    @pytest.mark.parametrize("attention", ["sdpa", "eager"])
    def test_attention_of_encoder_and_decoder(self, flash, layouts, pixels, expected, attention):
        model = load_model(find_checkpoint(str(flash.folder)), attn_implementation=attention)
        assert model.vision_tower.config._attn_implementation == attention
        assert model.language_model.config._attn_implementation == attention
        torch.testing.assert_close(logits(layouts, model, pixels), expected, atol=1e-4, rtol=1e-4)

    def test_the_attention_asked_for_wins_over_the_files(self, altered, layouts):
        # Releases before 3.5 name flash attention inside llm_config.
        decoder = layouts.DECODERS["qwen3"] | {"attn_implementation": "flash_attention_2"}
        model = load_model(find_checkpoint(altered(llm_config=decoder)))
        assert model.language_model.config._attn_implementation == "sdpa"

    @pytest.mark.parametrize(
        ("stored", "asked", "loaded"),
        [
            ("float32", "bfloat16", torch.bfloat16),
            ("bfloat16", "auto", torch.bfloat16),
            ("bfloat16", "float32", torch.float32),
            ("float32", "float16", torch.float16),
        ],
    )
    def test_dtype(self, altered, stored, asked, loaded):
        model = load_model(find_checkpoint(altered(torch_dtype=stored)), dtype=asked)
        assert {parameter.dtype for parameter in model.parameters()} == {loaded}

    def test_bfloat16_is_near(self, flash, layouts, pixels, expected):
        model = load_model(find_checkpoint(str(flash.folder)), dtype="bfloat16")
        found = logits(layouts, model, pixels).float()
        # bfloat16 keeps 8 bits; through four layers that is a few percent of logits of order 1.
        assert (found - expected).abs().mean() < 0.05 * expected.std()

    def test_is_in_evaluation_mode(self, flash):
        assert not any(module.training for module in load_model(find_checkpoint(str(flash.folder))).modules())

    def test_identity_follows_the_weights(self, flash, altered):
        here = find_checkpoint(str(flash.folder)).identity()
        assert here["path"] == str(flash.folder)
        norm = flash.tensors["mlp1.0.bias"]
        assert find_checkpoint(altered()).identity()["sha256"] != here["sha256"]  # config.json is laid out anew
        same = find_checkpoint(altered()).identity()["sha256"]
        assert find_checkpoint(altered({"mlp1.0.bias": norm + 1})).identity()["sha256"] != same
        assert find_checkpoint(altered()).identity()["sha256"] == same

    @pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json", "generation_config.json"])
    def test_identity_follows_the_files_that_decide_an_answer(self, altered, file):
        folder = Path(altered())
        before = find_checkpoint(str(folder)).identity()["sha256"]
        (folder / file).write_text("{}")
        changed = find_checkpoint(str(folder)).identity()["sha256"]
        assert changed != before
        (folder / file).write_text("{ }")
        assert find_checkpoint(str(folder)).identity()["sha256"] not in (before, changed)
        (folder / "README.md").write_text("For people.")
        (folder / file).unlink()
        assert find_checkpoint(str(folder)).identity()["sha256"] == before

    def test_identity_does_not_follow_the_shards(self, altered):
        whole = find_checkpoint(altered()).identity()["sha256"]
        folder = Path(altered(num_shards=3))
        (folder / "model.safetensors").unlink(missing_ok=True)
        checkpoint = find_checkpoint(str(folder))
        assert len(set(checkpoint.weights.values())) == 3
        assert checkpoint.identity()["sha256"] == whole


class TestWrongWeights:
    """Each message names the tensor, in the checkpoint's words or, after renaming, in those of the modules."""

    def refused(self, folder, message):
        with pytest.raises(CheckpointError, match=message):
            load_model(find_checkpoint(str(folder)))

    @pytest.mark.parametrize(
        ("name", "named"),
        [
            ("mlp1.3.bias", "missing: connector_high.linear_2.bias"),
            ("mlp2.4.weight", "missing: connector_low.linear_2.weight"),
            (f"{LAYER}.ls1", "missing: vision_tower.encoder.layer.0.lambda_1"),
            (f"{LAYER}.attn.qkv.bias", r"missing: vision_tower.encoder.layer.0.attention.k_proj.bias, .*v_proj.bias"),
            ("gating.block3.0.weight", "missing: router.blocks.2.up.weight"),
            ("pooling_before_gating.query_token", "missing: router.query"),
            ("language_model.lm_head.weight", "missing: language_model.lm_head.weight"),
            ("language_model.model.norm.weight", "missing: language_model.model.norm.weight"),
        ],
    )
    def test_missing(self, altered, name, named):
        self.refused(altered({name: None}), named)

    def test_a_router_without_its_gate(self, flash, altered):
        gate = {name: None for name in flash.tensors if name.startswith("gating.")}
        self.refused(altered(gate), r"missing: router\.blocks\.0\.down\.bias.* and \d+ more")

    @pytest.mark.parametrize(
        "name", ["mlp3.0.weight", "pooling_before_gating.attn5.in_proj_bias", "gating.block5.0.weight", "stray"]
    )
    def test_unexpected(self, altered, name):
        self.refused(altered({name: torch.zeros(3)}), f"unexpected: {name}")

    @pytest.mark.parametrize(
        ("name", "shape", "named"),
        [
            ("mlp1.1.weight", (32, 64), r"connector_high.linear_1.weight has shape \[32, 64\], expected \[32, 128\]"),
            (
                f"{LAYER}.attn.qkv.weight",
                (90, 32),
                r"attention.k_proj.weight has shape \[30, 32\], expected \[32, 32\]",
            ),
            (
                "vision_model.embeddings.position_embedding",
                (1, 26, 32),
                r"position_embeddings has shape \[1, 26, 32\], expected \[1, 17, 32\]",
            ),
        ],
    )
    def test_shape(self, altered, name, shape, named):
        self.refused(altered({name: torch.zeros(shape)}), named)

    def test_several_at_once(self, altered):
        folder = altered({"mlp1.3.bias": None, "stray": torch.zeros(1), "mlp1.1.weight": torch.zeros(32, 64)})
        self.refused(folder, r"missing: connector_high.*unexpected: stray.*linear_1.weight has shape")

    def test_dead_router_weights_may_be_there_or_not(self, flash, altered, spoken):
        dead = [name for name in flash.tensors if any(part in name for part in ("attn3", "attn4", "norm3", "norm4"))]
        assert len(dead) == 12
        load_model(find_checkpoint(str(flash.folder)))
        load_model(find_checkpoint(altered(dict.fromkeys(dead))))
        assert spoken() == []

    @pytest.mark.parametrize(
        ("replace", "named"),
        [
            ({"2.up_proj": None}, r"missing: language_model\.model\.layers\.1\.mlp\.experts\.2\.up_proj\.weight"),
            (
                {"0.down_proj": torch.zeros(32, 7)},
                r"experts\.0\.down_proj\.weight has shape \[32, 7\], expected \[32, 20\]",
            ),
            ({"3.up_proj": torch.zeros(20, 32)}, r"unexpected: .*experts\.3\.up_proj\.weight"),
        ],
    )
    def test_experts(self, layouts, tmp_path, replace, named):
        tensors = dict(layouts.build_released(tmp_path, "qwen3_moe").tensors)
        for part, tensor in replace.items():
            name = f"language_model.model.layers.1.mlp.experts.{part}.weight"
            tensors.pop(name, None)
            if tensor is not None:
                tensors[name] = tensor
        layouts.save_shards(tmp_path, tensors, 1)
        self.refused(tmp_path, named)

    @pytest.mark.parametrize(
        ("name", "tensor", "named"),
        [
            ("linear_1.bias", None, r"missing: connector_high\.linear_1\.bias"),
            ("linear_3.bias", torch.zeros(2), r"unexpected: multi_modal_projector\.linear_3\.bias"),
            ("linear_2.bias", torch.zeros(2), r"connector_high\.linear_2\.bias has shape \[2\], expected \[32\]"),
        ],
    )
    @pytest.mark.parametrize("early_names", [True, False], ids=["before-4.53", "since-4.53"])
    def test_hf_layout(self, layouts, tmp_path, early_names, name, tensor, named):
        layouts.build_hf(tmp_path, "qwen3", early_names=early_names)
        name = ("" if early_names else "model.") + "multi_modal_projector." + name
        tensors = load_file(tmp_path / "model.safetensors")
        tensors.pop(name, None)
        layouts.save_shards(tmp_path, tensors | ({} if tensor is None else {name: tensor}), 1)
        self.refused(tmp_path, named)

    @pytest.mark.parametrize(
        ("name", "tensor", "named"),
        [
            ("router.query", None, r"missing: router\.query"),
            ("image_router.query", torch.zeros(2), r"unexpected: image_router\.query"),
            ("connector_low.norm.bias", torch.zeros(2), r"connector_low\.norm\.bias has shape \[2\], expected \[512\]"),
        ],
    )
    def test_our_layout(self, flash, layouts, tmp_path, name, tensor, named):
        load_model(find_checkpoint(str(flash.folder))).save_pretrained(tmp_path)
        tensors = load_file(tmp_path / "model.safetensors")
        tensors.pop(name, None)
        layouts.save_shards(tmp_path, tensors | ({} if tensor is None else {name: tensor}), 1)
        self.refused(tmp_path, named)


class TestWrongFiles:
    def refused(self, folder, message):
        with pytest.raises(CheckpointError, match=message):
            find_checkpoint(str(folder))

    def test_no_checkpoint(self, tmp_path):
        (tmp_path / "notes.txt").write_text("hello")
        self.refused(tmp_path, rf"{tmp_path} is not a checkpoint: it has no config\.json")

    @pytest.mark.parametrize("text", ['{"model_type": ', "", "\udcff"])
    def test_broken_config(self, tmp_path, text):
        (tmp_path / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
        self.refused(tmp_path, r"config\.json can't be read as JSON.*Download it again")

    @pytest.mark.parametrize(
        "change", [{"vision_config": {}}, {"vision_config": {"image_size": 56}}, {"llm_config": "qwen3"}, {"use": 1}]
    )
    def test_incomplete_config(self, altered, change):
        folder = altered(**change)
        if "use" in change:
            (Path(folder) / "config.json").write_text("[1, 2]")
        self.refused(folder, r"config\.json is not a complete configuration")

    def test_missing_shard(self, altered):
        folder = altered(num_shards=4)
        (Path(folder) / "model-00003-of-00004.safetensors").unlink()
        self.refused(folder, r"incomplete checkpoint: 1 of the 4 .*missing: model-00003-of-00004\.safetensors")

    @pytest.mark.parametrize("index", ["{", "{}", "[]", '{"weight_map": 3}'])
    def test_broken_index(self, altered, index):
        folder = altered(num_shards=2)
        (Path(folder) / "model.safetensors.index.json").write_text(index)
        self.refused(folder, r"index\.json has no readable weight_map")

    @pytest.mark.parametrize(
        "name", ["../../x.safetensors", "/etc/x.safetensors", "sub/x.safetensors", "..", "", "C:\\x.safetensors"]
    )
    def test_an_index_that_leads_out_of_its_folder(self, altered, name):
        folder = Path(altered(num_shards=2))
        index = json.loads((folder / "model.safetensors.index.json").read_text())
        first = next(iter(index["weight_map"]))
        index["weight_map"][first] = name
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        self.refused(folder, r"index\.json names files outside of its folder: ")

    def test_a_shard_that_is_a_link_to_elsewhere_as_in_the_hubs_cache(self, altered, tmp_path):
        folder = Path(altered(num_shards=2))
        blob = tmp_path / "0123abcd"
        shard = next(folder.glob("model-00001*.safetensors"))
        shard.rename(blob)
        shard.symlink_to(blob)
        assert shard in find_checkpoint(str(folder)).weights.values()

    @pytest.mark.parametrize("is_complete", [True, False])
    def test_an_adapter_beside_the_weights(self, altered, tmp_path, is_complete):
        folder = Path(altered()) if is_complete else tmp_path
        (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "elsewhere"}')
        self.refused(folder, r"contains adapter_config\.json, an adapter \(LoRA\).*Merge it into them")

    @pytest.mark.parametrize(
        ("num_shards", "file"), [(1, "model.safetensors"), (3, "model-00002-of-00003.safetensors")]
    )
    @pytest.mark.parametrize("content", ["half", "empty", "a pointer"])
    def test_truncated_file(self, altered, num_shards, file, content):
        path = Path(altered(num_shards=num_shards)) / file
        whole = path.read_bytes()
        path.write_bytes({"half": whole[: len(whole) // 2], "empty": b"", "a pointer": b"version 1\nsize 3\n"}[content])
        self.refused(path.parent, rf"{path} is not a complete safetensors file.*Download it again")

    def test_only_pickled_weights(self, altered):
        folder = Path(altered())
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
        self.refused(
            folder,
            r"has no weights: expected model\.safetensors.*pickled weights \(\.bin\).*not read.*allow_pickle=true",
        )

    def test_no_weights(self, altered):
        folder = Path(altered())
        (folder / "model.safetensors").unlink()
        self.refused(folder, r"has no weights: expected model\.safetensors, or .*index\.json and its shards\.$")

    @pytest.mark.parametrize("name", ["no/such/folder", "/no/such", "./such", "vico-tinyy", "~/no-such-folder"])
    def test_no_such_path(self, name):
        self.refused(name, rf"no checkpoint '{name}': it is not a folder, a hub id \(owner/name\) or a built-in")

    def test_hub_id_without_network(self):
        self.refused(
            "vico-eval-tests/no-such-model",
            r"'vico-eval-tests/no-such-model' is not in the local hub cache.*no network",
        )

    def test_unsupported_decoder(self, altered):
        decoder = {
            "architectures": ["Phi3ForCausalLM"],
            "model_type": "phi3",
            "auto_map": {"AutoConfig": "x.Y"},
        }
        self.refused(altered(llm_config=decoder), r"'Phi3ForCausalLM'")


class TestWrongArguments:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"dtype": "int8"}, r"unknown dtype 'int8'; known: auto, float32, bfloat16, float16"),
            ({"attn_implementation": "flash"}, r"unknown attn_implementation 'flash'; known: sdpa, eager"),
            ({"attn_implementation": "flex_attention"}, r"unknown attn_implementation 'flex_attention'"),
            ({"device": "cpu", "device_map": "auto"}, "both device and device_map"),
            ({"device": "gpu"}, r"device='gpu' is not a device name; expected cpu, cuda"),
            ({"device_map": "nowhere"}, r"device='nowhere' is not a device name"),
            ({"device_map": {"": "cpu", "vision_tower": "nowhere"}}, r"device='nowhere' is not a device name"),
        ],
    )
    def test_refused(self, flash, arguments, message):
        with pytest.raises(ConfigError, match=message):
            load_model(find_checkpoint(str(flash.folder)), **arguments)

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
    @pytest.mark.parametrize("device", ["cuda", "cuda:0"])
    def test_gpu_where_there_is_none(self, device):
        with pytest.raises(ConfigError, match=f"device='{device}' was requested, but torch sees 0 GPUs"):
            check_device(device)

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
    @pytest.mark.parametrize("device_map", ["cuda", {"": 0}, {"": "cpu", "language_model": "cuda:0"}])
    def test_device_map_with_a_gpu_where_there_is_none(self, flash, device_map):
        with pytest.raises(ConfigError, match="torch sees 0 GPUs"):
            load_model(find_checkpoint(str(flash.folder)), device_map=device_map)

    @pytest.mark.skipif(find_spec("flash_attn") is not None, reason="flash-attn is installed")
    def test_flash_attention_not_installed(self, flash):
        with pytest.raises(ConfigError, match=r"attn_implementation='flash_attention_2' can't be used here"):
            load_model(find_checkpoint(str(flash.folder)), attn_implementation="flash_attention_2")

    def test_flash_attention_in_float32(self, monkeypatch):
        monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
        with pytest.raises(ConfigError, match="'flash_attention_2' can't compute in float32; pass dtype=bfloat16"):
            check_attention("flash_attention_2", is_on_cpu=False, dtype=torch.float32)
        check_attention("flash_attention_2", is_on_cpu=False, dtype=torch.bfloat16)


SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool_call>", "<img>", "</img>", "<IMG_CONTEXT>", "<box>")


def write_qwen2_tokenizer(folder):
    """The files of a released InternVL3.5 tokenizer: bytes, two merges, special tokens."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {byte: chr(byte) for byte in printable}
    letters |= {byte: chr(256 + i) for i, byte in enumerate(b for b in range(256) if b not in printable)}
    vocab = {letters[byte]: byte for byte in range(256)} | {"he": 256, "ll": 257}
    added = {token: 258 + i for i, token in enumerate(SPECIAL)}
    plain = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    files = {
        "vocab.json": vocab,
        "added_tokens.json": added,
        "special_tokens_map.json": {
            "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
            "eos_token": {"content": "<|im_end|>", **plain},
            "pad_token": {"content": "<|endoftext|>", **plain},
        },
        "tokenizer_config.json": {
            "add_bos_token": False,
            "add_prefix_space": False,
            "added_tokens_decoder": {
                str(index): {"content": token, "special": token != "<tool_call>", **plain}
                for token, index in added.items()
            },
            "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
            "bos_token": None,
            "clean_up_tokenization_spaces": False,
            "eos_token": "<|im_end|>",
            "errors": "replace",
            "extra_special_tokens": {},
            "model_max_length": 14588,
            "pad_token": "<|endoftext|>",
            "split_special_tokens": False,
            "tokenizer_class": "Qwen2Tokenizer",
            "unk_token": None,
        },
    }
    for name, values in files.items():
        (folder / name).write_text(json.dumps(values))
    (folder / "merges.txt").write_text("#version: 0.2\nh e\nl l\n")


class TestTokenizer:
    @pytest.fixture
    def folder(self, altered):
        folder = Path(altered())
        write_qwen2_tokenizer(folder)
        # auto_map of config.json points here; nothing may run it.
        for name in ("configuration_internvl_chat", "modeling_internvl_chat", "tokenization"):
            (folder / f"{name}.py").write_text("raise SystemExit('remote code was run')\n")
        return folder

    def test_of_a_released_checkpoint(self, folder, spoken, recwarn):
        tokenizer = load_tokenizer(find_checkpoint(str(folder)))
        assert spoken() == []
        assert not recwarn.list
        text = "<|im_start|>user\n<img><IMG_CONTEXT><IMG_CONTEXT></img>\nhello  é<|im_end|>"
        ids = tokenizer(text)["input_ids"]
        assert ids[:1] + ids[6:10] == [259, 262, 264, 264, 263]
        assert ids[11:13] == [256, 257], "he, ll: the merges are used"
        assert tokenizer.decode(ids) == text
        assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (260, 258)

    def test_of_our_own_checkpoint(self, folder, tmp_path_factory, spoken):
        ours = tmp_path_factory.mktemp("ours")
        checkpoint = find_checkpoint(str(folder))
        load_model(checkpoint).save_pretrained(ours)
        load_tokenizer(checkpoint).save_pretrained(ours)
        tokenizer = load_tokenizer(find_checkpoint(str(ours)))
        plain = AutoTokenizer.from_pretrained(ours)
        assert spoken() == []
        assert tokenizer("<img>hello")["input_ids"] == plain("<img>hello")["input_ids"] == [262, 256, 257, 111]

    def test_spoken_would_hear_a_warning(self, spoken):
        logging.getLogger("transformers.tokenization").warning("heard")
        assert "heard" in spoken()

    def test_remote_code_is_never_run(self, folder):
        file = folder / "tokenizer_config.json"
        values = json.loads(file.read_text())
        del values["tokenizer_class"]
        file.write_text(json.dumps(values | {"auto_map": {"AutoTokenizer": ["tokenization.Remote", None]}}))
        with pytest.raises(CheckpointError, match=r"the tokenizer in .* can't be loaded"):
            load_tokenizer(find_checkpoint(str(folder)))

    def test_no_tokenizer_files(self, altered):
        with pytest.raises(
            CheckpointError, match=r"has no tokenizer: expected tokenizer\.json, or vocab\.json and merges"
        ):
            load_tokenizer(find_checkpoint(altered()))

    def test_without_the_image_token(self, folder):
        (folder / "added_tokens.json").unlink()
        file = folder / "tokenizer_config.json"
        values = json.loads(file.read_text())
        values["added_tokens_decoder"].pop("264")
        file.write_text(json.dumps(values))
        with pytest.raises(CheckpointError, match=r"has no <IMG_CONTEXT> token.*added_tokens\.json"):
            load_tokenizer(find_checkpoint(str(folder)))

    def test_from_another_folder(self, folder, tmp_path_factory):
        moved = tmp_path_factory.mktemp("moved") / "checkpoint"
        shutil.copytree(folder, moved)
        assert len(load_tokenizer(find_checkpoint(str(moved)))) == 258 + len(SPECIAL)


@pytest.mark.parametrize("ratio", [0, -1, 2, math.inf, math.nan, "half", None])
def test_a_share_of_tokens_that_is_none_is_refused(tmp_path, ratio):
    content = json.loads((models_dir() / "vico-tiny" / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(content | {"downsample_ratio": ratio}))
    with pytest.raises(CheckpointError, match=r"config\.json is not a complete configuration"):
        find_checkpoint(str(tmp_path))


def test_a_configuration_that_is_nested_too_deep_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"a":' * 100_000)
    with pytest.raises(CheckpointError, match="can't be read as JSON"):
        find_checkpoint(str(tmp_path))
