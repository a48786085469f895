"""An exported decoder, loaded by transformers alone, computes what ours does; a stopped export is none."""

import errno
import fcntl
import json
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedTokenizerFast

from vico_eval.errors import CheckpointError, OutputError
from vico_eval.families.internvl.checkpoint import find_checkpoint, load_model
from vico_eval.families.internvl.decoder_export import export_decoder, exported_decoder
from vico_eval.paths import models_dir

from .test_internlm2 import internlm2_tensors

DECODERS = ["qwen2", "qwen2-tied", "qwen3", "qwen3_moe", "llama"]
CLASSES = {"qwen2": "Qwen2", "qwen2-tied": "Qwen2", "qwen3": "Qwen3", "qwen3_moe": "Qwen3Moe", "llama": "Llama"}
SPECIAL = ["<unk>", "<s>", "</s>", "<img>", "</img>", "<IMG_CONTEXT>", "<|im_start|>", "<|im_end|>"]


def with_tokenizer(folder):
    """Put a small tokenizer beside a checkpoint; its words are numbers."""
    words = SPECIAL + [str(number) for number in range(64 - len(SPECIAL))]
    backend = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_object=backend, **special).save_pretrained(folder)
    return folder


@pytest.fixture
def build(layouts, tmp_path):
    """Writes a small random checkpoint in one of the three layouts."""

    def write(decoder, layout="released", **options):
        folder = tmp_path / "checkpoint"
        if layout == "hf":
            layouts.build_hf(folder, decoder, **options)
        else:
            layouts.build_released(folder, decoder, **options)
        if layout == "ours":
            model = load_model(find_checkpoint(folder))
            folder = tmp_path / "ours"
            model.save_pretrained(folder)
        return with_tokenizer(folder)

    return write


@torch.inference_mode()
def logits(model):
    """Of 16 tokens, all the positions that these decoders have."""
    for parameter in model.parameters():  # a last bit may hang on where in a file a weight lies
        parameter.data = parameter.data.clone()
    return model(torch.arange(3, 19)[None]).logits


def assert_same(out, checkpoint):
    plain = AutoModelForCausalLM.from_pretrained(out).eval()
    assert type(plain).__module__.startswith("transformers.")
    decoder = load_model(checkpoint).language_model
    weights, expected = plain.state_dict(), decoder.state_dict()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert torch.equal(logits(plain), logits(decoder))


@pytest.mark.parametrize("layout", ["released", "hf", "ours"])
@pytest.mark.parametrize("decoder", DECODERS)
def test_logits_are_those_of_the_checkpoints_decoder(build, tmp_path, decoder, layout):
    checkpoint = find_checkpoint(build(decoder, layout))
    assert export_decoder(checkpoint, tmp_path / "out")
    assert_same(tmp_path / "out", checkpoint)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["architectures"] == [f"{CLASSES[decoder]}ForCausalLM"]
    assert config.get("num_experts") == (3 if decoder == "qwen3_moe" else None)  # for a transformers before 5


def test_internlm2_is_a_llama(layouts, build, tmp_path):
    folder = build("llama")
    llama = layouts.reference_decoder(layouts.DECODERS["llama"])
    tensors = load_file(folder / "model.safetensors")
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("language_model.")}
    layouts.save_shards(folder, tensors | internlm2_tensors(llama), 1)
    config = json.loads((folder / "config.json").read_text())
    config["llm_config"] |= {"model_type": "internlm2", "architectures": ["InternLM2ForCausalLM"], "bias": False}
    (folder / "config.json").write_text(json.dumps(config | {"template": "internlm2-chat"}))
    checkpoint = find_checkpoint(folder)
    export_decoder(checkpoint, tmp_path / "out")
    assert_same(tmp_path / "out", checkpoint)
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "out")), logits(llama))


@pytest.mark.parametrize("num_shards", [1, 3])
def test_shards_are_indexed_and_no_larger_than_asked_for(build, tmp_path, num_shards):
    checkpoint = find_checkpoint(build("qwen3_moe", num_shards=num_shards))
    export_decoder(checkpoint, tmp_path / "out", shard_bytes=20_000)
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    files = sorted((tmp_path / "out").glob("*.safetensors"))
    assert len(files) > 2
    assert [file.name for file in files] == sorted(set(index["weight_map"].values()))
    sizes = []
    for file in files:
        tensors = load_file(file)
        assert {name for name, where in index["weight_map"].items() if where == file.name} == set(tensors)
        sizes.append(sum(tensor.nbytes for tensor in tensors.values()))
    assert max(sizes) <= 20_000
    assert index["metadata"]["total_size"] == sum(sizes)
    assert_same(tmp_path / "out", checkpoint)


def test_weights_keep_their_dtype(tmp_path):
    checkpoint = find_checkpoint("vico-tiny")
    export_decoder(checkpoint, tmp_path / "out")
    stored = load_file(models_dir() / "vico-tiny" / "model.safetensors")
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert {tensor.dtype for tensor in found.values()} == {torch.bfloat16}
    assert all(torch.equal(tensor, stored[f"language_model.{name}"]) for name, tensor in found.items())
    assert "lm_head.weight" not in found  # tied
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").dtype is torch.bfloat16


def test_nothing_of_a_release_is_applied_unasked(build, tmp_path):
    folder = build("qwen3")
    GenerationConfig(temperature=0.6, do_sample=True, repetition_penalty=1.3, eos_token_id=9).save_pretrained(folder)
    export_decoder(find_checkpoint(folder), tmp_path / "out")
    found = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    del found["transformers_version"]
    assert found == {"bos_token_id": 1, "eos_token_id": [2, 7]}  # end of text, end of turn


def test_the_configuration_is_transformers_own(build, tmp_path):
    """Dynamic NTK changes nothing within `max_position_embeddings`; vLLM would take prompts of twice that length."""
    export_decoder(find_checkpoint(build("qwen2")), tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["rope_parameters"] == {"rope_type": "default", "rope_theta": 10000.0}
    assert (config["rope_theta"], config["torch_dtype"]) == (10000.0, "float32")  # for a transformers before 5
    assert config.keys().isdisjoint({"moe_config", "rope_scaling", "auto_map"})


def test_linear_scaling_stays_in_both_words(build, tmp_path):
    folder = build("llama")
    config = json.loads((folder / "config.json").read_text())
    config["llm_config"]["rope_scaling"] = {"type": "linear", "factor": 2.0}
    (folder / "config.json").write_text(json.dumps(config))
    checkpoint = find_checkpoint(folder)
    export_decoder(checkpoint, tmp_path / "out")
    assert_same(tmp_path / "out", checkpoint)
    found = json.loads((tmp_path / "out" / "config.json").read_text())
    assert found["rope_scaling"] == {"rope_type": "linear", "type": "linear", "factor": 2.0}


def test_the_tokenizer_is_the_checkpoints(build, tmp_path):
    folder = build("qwen3")
    export_decoder(find_checkpoint(folder), tmp_path / "out")
    found, expected = AutoTokenizer.from_pretrained(tmp_path / "out"), AutoTokenizer.from_pretrained(folder)
    assert found.get_vocab() == expected.get_vocab()


@pytest.mark.parametrize(
    ("replace", "problem"),
    [
        ({"language_model.model.norm.weight": None}, "missing: model.norm.weight"),
        ({"language_model.lm_head.weight": torch.zeros(60, 32)}, r"lm_head.weight has shape \[60, 32\], expected"),
        ({"language_model.model.layers.9.x": torch.zeros(1)}, "unexpected: model.layers.9.x"),
    ],
)
def test_weights_that_do_not_fit_are_named_before_anything_is_written(altered, tmp_path, replace, problem):
    checkpoint = find_checkpoint(altered(replace))
    with pytest.raises(CheckpointError, match=problem):
        export_decoder(checkpoint, tmp_path / "new" / "out")
    assert not (tmp_path / "new").exists()


def test_parts_inside_the_decoder_are_refused_by_name(untrained, tmp_path):
    with pytest.raises(CheckpointError, match="trained with lvtc inside its decoder"):
        export_decoder(find_checkpoint(untrained / "lvtc"), tmp_path / "out")
    assert export_decoder(find_checkpoint(untrained / "pvtc"), tmp_path / "out")


def test_a_finished_export_is_left_as_it_is_and_anything_else_is_refused(untrained, tmp_path):
    out, vico, base = tmp_path / "out", find_checkpoint(untrained / "vico"), find_checkpoint("vico-tiny-base")
    out.mkdir()
    assert export_decoder(vico, out)  # an empty folder will do
    before = {file.name: file.stat().st_mtime_ns for file in out.iterdir()}
    assert not export_decoder(vico, out)
    assert {file.name: file.stat().st_mtime_ns for file in out.iterdir()} == before
    with pytest.raises(OutputError, match="already exists"):
        export_decoder(base, out)
    (out / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(OutputError, match="already exists"):
        export_decoder(vico, out)


SCRIPT = """\
import signal, sys
from pathlib import Path
from vico_eval.families.internvl.checkpoint import find_checkpoint
from vico_eval.families.internvl.decoder_export import exported_decoder
{first}
print(exported_decoder(find_checkpoint("vico-tiny"), Path(sys.argv[1])))
"""


@pytest.fixture
def export_in_a_process(start_loaded, tmp_path_factory):
    """Exports the small model in a process of its own: how that ended, and what it said."""

    def export(cache, first=""):
        log = tmp_path_factory.mktemp("log") / "log"
        (program,) = start_loaded(["-c", SCRIPT.format(first=first), cache], log)
        status = program.wait(300)
        return status, log.read_text()

    return export


LIMITED = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))"
"""A file that would grow beyond a megabyte ends the process, where Python's own handler is taken away."""


def test_a_killed_export_leaves_nothing_that_counts_and_the_next_one_clears_it_away(export_in_a_process, tmp_path):
    status, _ = export_in_a_process(tmp_path, f"{LIMITED}; signal.signal(signal.SIGXFSZ, signal.SIG_DFL)")
    assert status == -signal.SIGXFSZ
    (left,) = tmp_path.glob(".*.partial")
    assert not list(tmp_path.glob("*/export.json"))
    folder = exported_decoder(find_checkpoint("vico-tiny"), tmp_path)
    assert not left.exists()
    assert folder.parent == tmp_path
    assert_same(folder, find_checkpoint("vico-tiny"))


def test_a_full_disk_is_an_error_that_says_so(export_in_a_process, tmp_path):
    _, said = export_in_a_process(tmp_path, LIMITED)
    assert "OutputError: Can't write into" in said
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]


def test_of_several_processes_one_exports(export_in_a_process, tmp_path):
    with ThreadPoolExecutor(2) as pool:
        ended = [*pool.map(lambda _: export_in_a_process(tmp_path), range(2))]
    assert [status for status, _ in ended] == [0, 0]
    assert len({said.splitlines()[-1] for _, said in ended}) == 1
    assert len(list(tmp_path.glob("*/export.json"))) == 1


def test_a_cache_knows_what_is_fresh(build, tmp_path):
    cache, folder = tmp_path / "cache", build("qwen3")
    out = exported_decoder(find_checkpoint(folder), cache)
    written = (out / "export.json").stat().st_mtime_ns
    assert exported_decoder(find_checkpoint(folder), cache) == out
    assert (out / "export.json").stat().st_mtime_ns == written
    (out / "tokenizer.json").unlink()
    assert exported_decoder(find_checkpoint(folder), cache) == out  # torn: made anew
    assert (out / "tokenizer.json").exists()
    tensors = load_file(folder / "model.safetensors")
    tensors["language_model.model.norm.weight"] = tensors["language_model.model.norm.weight"] + 1
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    changed = exported_decoder(find_checkpoint(folder), cache)
    assert changed != out
    with safe_open(changed / "model.safetensors", "pt") as weights:
        assert torch.equal(weights.get_tensor("model.norm.weight"), tensors["language_model.model.norm.weight"])


def test_a_cache_that_cannot_be_written_says_what_to_do(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="XDG_CACHE_HOME"):
        exported_decoder(find_checkpoint("vico-tiny"), tmp_path / "file" / "cache")


def test_a_cache_on_a_file_system_without_locks_is_refused(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSYS, "not here")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OutputError, match=r"vico-tiny can't be kept: .* has no file locks .*XDG_CACHE_HOME"):
        exported_decoder(find_checkpoint("vico-tiny"), tmp_path)
    assert not list(tmp_path.glob("*/export.json"))


def test_the_command_says_what_it_did(run, build, tmp_path):
    folder, out = build("qwen2"), tmp_path / "out"
    status, _, messages = run("export-decoder", folder, out)
    assert status == 0
    assert "positions beyond max_position_embeddings (16)" in messages
    assert f"Written: {out}/" in messages
    status, _, messages = run("export-decoder", folder, out)
    assert status == 0
    assert "Nothing to do" in messages
    status, _, messages = run("export-decoder", "vico-tiny", out)
    assert status == 1
    assert "already exists" in messages
