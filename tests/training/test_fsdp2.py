"""Weights in shards: the same numbers as one process, and no process but the first ever holds a whole model."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from accelerate.utils import FullyShardedDataParallelPlugin
from accelerate.utils.fsdp_utils import fsdp2_prepare_auto_wrap_policy
from safetensors.torch import load_file
from transformers import AutoConfig
from transformers.models.internvl import InternVLVisionConfig

from vico_eval.errors import ConfigError
from vico_eval.families.internvl.checkpoint import find_checkpoint, load_model
from vico_eval.families.internvl.config import VicoInternVLConfig
from vico_eval.families.internvl.internlm2 import llama_values
from vico_eval.paths import models_dir
from vico_eval.training.config import ConsistencyConfig
from vico_eval.training.loop.accelerated import configure_fsdp
from vico_eval.training.models.blank import blank_model, give_addresses
from vico_eval.training.models.pair import PolicyAndReference, frozen_copy
from vico_eval.training.small.architecture import build_config, build_model
from vico_eval.training.small.export import save_base
from vico_eval.training.stages import train_consistency, train_router

from .conftest import forget_accelerate
from .runs import finish, log_of, wait_for_checkpoint, weights_of, write_config

HERE = Path(__file__).parent

SIZES = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}
EXPERTS = {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 8}
DECODERS = {
    "Qwen3DecoderLayer": {"model_type": "qwen3", **SIZES},
    "Qwen3MoeDecoderLayer": {"model_type": "qwen3_moe", **SIZES, **EXPERTS},
    "Qwen2DecoderLayer": {"model_type": "qwen2", **SIZES},
    "LlamaDecoderLayer": {"model_type": "llama", **SIZES},
    "LlamaDecoderLayer, of InternLM2": llama_values({"model_type": "internlm2", "bias": False, **SIZES}),
}
VISION = InternVLVisionConfig(
    hidden_size=16,
    num_hidden_layers=3,
    num_attention_heads=2,
    intermediate_size=16,
    image_size=(56, 56),
    patch_size=(14, 14),
)


def fsdp_settings():
    """What accelerate's launcher tells processes of the configuration in models/training."""
    values = yaml.safe_load((models_dir() / "training" / "fsdp2.yaml").read_text())["fsdp_config"]
    return {"ACCELERATE_USE_FSDP": "true"} | {name.upper(): str(value) for name, value in values.items()}


@pytest.fixture
def shared(start_loaded, tmp_path):
    """Run the program of fsdp2.py, or another, on two processes; returns what it says."""

    def run(*arguments, script="fsdp2.py"):
        log = tmp_path / "log"
        return finish(start_loaded([HERE / script, *arguments], log, processes=2, **fsdp_settings()), log)

    return run


@pytest.mark.parametrize("layer", DECODERS)
def test_layers_are_shared_one_by_one_whatever_the_decoder(layer, monkeypatch):
    decoder = DECODERS[layer]
    config = VicoInternVLConfig(vision_config=VISION, text_config=AutoConfig.for_model(**decoder))
    model = blank_model(config)
    pair = PolicyAndReference(model, frozen_copy(model, train_vision=True))
    for name, value in fsdp_settings().items():
        monkeypatch.setenv(name, value)
    plugin = FullyShardedDataParallelPlugin()
    plugin.set_auto_wrap_policy(pair)
    is_shared = fsdp2_prepare_auto_wrap_policy(plugin, pair)
    found = Counter(type(module).__name__ for module in pair.modules() if is_shared(module))
    assert found == {layer.split(",")[0]: 2 * 2, "InternVLVisionLayer": 2 * 3}


def test_the_first_version_of_fsdp_is_refused(consistency_settings):
    config = ConsistencyConfig.model_validate(consistency_settings)
    accelerator = SimpleNamespace(state=SimpleNamespace(fsdp_plugin=SimpleNamespace(fsdp_version=1)))
    with pytest.raises(ConfigError, match="fsdp_version 1; expected 2"):
        configure_fsdp(accelerator, config)


def test_a_model_without_weights_is_as_one_with_them_but_for_memory(base_checkpoint):
    checkpoint = find_checkpoint(str(base_checkpoint))
    model, blank = load_model(checkpoint, dtype="float32"), blank_model(checkpoint.config)
    assert all(weight.is_meta for weight in blank.parameters())
    give_addresses(blank)
    weights, placed = dict(model.named_parameters()), dict(blank.named_parameters())
    assert [(name, value.shape, value.dtype) for name, value in weights.items()] == [
        (name, value.shape, value.dtype) for name, value in placed.items()
    ]
    assert len({value.data_ptr() for value in placed.values()}) == len(placed)
    assert {value.untyped_storage().nbytes() for value in placed.values()} == {4}
    assert blank.get_output_embeddings().weight is blank.get_input_embeddings().weight
    for name, value in model.named_buffers():
        assert torch.equal(value, dict(blank.named_buffers())[name])
    assert all(value.to("meta").is_contiguous() for value in placed.values())


def test_a_killed_stage_one_in_shards_gives_the_losses_of_one_process(
    start_loaded, shared, stage_one, consistency_settings, tmp_path
):
    out = tmp_path / "shared"
    path = write_config(tmp_path, consistency_settings, out=out)
    words, log = [HERE / "fsdp2.py", "consistency", path], tmp_path / "first.log"
    first = start_loaded(words, log, processes=2, **fsdp_settings())
    wait_for_checkpoint(out, first[0], log)
    for process in first:
        process.kill()
        assert process.wait(60) == -signal.SIGKILL
    assert not (out / "model").exists()
    shared("consistency", path)
    found, wanted = log_of(out), log_of(stage_one)
    assert found.keys() == wanted.keys()
    assert found == pytest.approx(wanted, rel=0, abs=1e-6)
    one, other = weights_of(stage_one / "model"), weights_of(out / "model")
    assert one.keys() == other.keys()
    for name, value in other.items():
        torch.testing.assert_close(value, one[name], atol=2e-5, rtol=2e-3)


def test_stage_two_in_shards_has_the_ratios_and_labels_of_one_process(shared, router_config, router_settings, tmp_path):
    train_router(router_config)
    forget_accelerate()
    out = tmp_path / "shared"
    shared("router", write_config(tmp_path, router_settings, out=out))
    for name in ("ratio", "keep_share", "loss"):
        assert log_of(out, name) == pytest.approx(log_of(router_config.out, name), rel=0, abs=1e-6), name


def test_adapters_in_shards_give_the_losses_of_one_process(shared, consistency_settings, tmp_path):
    settings = consistency_settings | {"lora": {"rank": 2, "alpha": 4}, "train_vision": False, "warmup": None}
    config = ConsistencyConfig.model_validate(settings)
    folder = train_consistency(config)
    forget_accelerate()
    out = tmp_path / "shared"
    shared("consistency", write_config(tmp_path, settings, out=out))
    assert log_of(out) == pytest.approx(log_of(config.out), rel=0, abs=1e-6)
    one, other = weights_of(folder), weights_of(out / "model")
    assert one.keys() == other.keys()
    for name, value in other.items():
        torch.testing.assert_close(value, one[name], atol=2e-5, rtol=2e-3)


def test_losses_in_shards_are_not_rounded(shared, consistency_settings, tmp_path):
    path = write_config(tmp_path, consistency_settings, precision="bf16")
    assert shared(path, script="sharded.py").count("alike") == 2


def test_no_process_but_the_first_holds_a_whole_model(micro_recipe, tokenizer, consistency_settings, tmp_path):
    sizes = {"text_width": 512, "text_layers": 8, "text_heads": 8, "text_kv_heads": 8, "text_head_width": 64}
    recipe = micro_recipe.model.model_copy(update={**sizes, "text_mlp_width": 2048})
    base = tmp_path / "wide"
    save_base(build_model(build_config(recipe, tokenizer), seed=0), tokenizer, base)
    weights = load_file(base / "model.safetensors")
    decoder = 4 * sum(value.numel() for name, value in weights.items() if "layers" in name)
    settings = consistency_settings | {"checkpoint": str(base), "precision": "bf16", "warmup": None, "global_batch": 8}
    path = write_config(tmp_path, settings)
    # What is freed is to leave the process at once, not to lie in pieces in its heap.
    environment = os.environ | fsdp_settings() | {"MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=4"]
    command += [HERE / "fsdp2.py", "memory", path]
    process = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600)
    output = process.stdout.decode()
    assert process.returncode == 0, output
    told = [json.loads(line) for line in output.splitlines() if line.startswith('{"rank"')]
    grown = {one["rank"]: one["grown"] / decoder for one in told}  # in decoders of float32
    # The policy in float32 and the reference in bfloat16 are 1.5 of them, of which each process keeps a quarter.
    assert grown.keys() == {0, 1, 2, 3}
    assert grown[0] > 1.5
    assert max(grown[rank] for rank in (1, 2, 3)) < 1
