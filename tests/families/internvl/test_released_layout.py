"""What is exported is what was loaded, under the released names, and nothing half-written can be loaded."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

import vico_eval
from vico_eval.cli import main
from vico_eval.errors import CheckpointError, OutputError
from vico_eval.families.internvl.checkpoint import find_checkpoint, load_model
from vico_eval.families.internvl.released_config import not_in_released, released_config
from vico_eval.families.internvl.released_layout import _released_weights, save_released
from vico_eval.methods.vico import compress_tiles
from vico_eval.tiny.tokenizer import build_tokenizer

GOLDEN = Path(__file__).parents[2] / "golden" / "internvl_flash" / "checkpoint"
DEAD = re.compile(r"pooling_before_gating\.(attn|norm)[34]\.")


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer().save_pretrained


def load(folder, image_token_id=None):
    checkpoint = find_checkpoint(str(folder))
    checkpoint.config.image_token_id = image_token_id
    return load_model(checkpoint)


def assert_equal_tensors(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name


def without_dead(tensors):
    return {name: tensor for name, tensor in tensors.items() if not DEAD.match(name)}


def test_the_golden_checkpoint_comes_out_as_it_went_in(tmp_path, tokenizer):
    save_released(load(GOLDEN), tokenizer, tmp_path / "out")
    found, expected = load_file(tmp_path / "out" / "model.safetensors"), load_file(GOLDEN / "model.safetensors")
    assert {name: tensor.shape for name, tensor in found.items()} == {
        name: tensor.shape for name, tensor in expected.items()
    }
    assert_equal_tensors(without_dead(found), without_dead(expected))
    assert len(found) - len(without_dead(found)) == 12  # two blocks: four tensors of attention, two of its norm
    values = json.loads((tmp_path / "out" / "config.json").read_text())
    assert values == json.loads((GOLDEN / "config.json").read_text())
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


def test_code_that_ran_the_dead_blocks_would_score_the_same(flash, layouts, pixels, tmp_path, tokenizer):
    model = load(flash.folder)
    save_released(model, tokenizer, tmp_path / "out")
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    pooling = {name.removeprefix("pooling_before_gating."): tensor for name, tensor in tensors.items()}
    reference = flash.pooling.eval()
    trained = {name: tensor.clone() for name, tensor in reference.state_dict().items()}
    try:
        reference.load_state_dict({name: pooling[name] for name in trained})
        with torch.inference_mode():
            vit_tokens = model.encode_tiles(pixels)
            query = reference.query_token.expand(2, 1, -1)
            for block in (1, 2, 3, 4):
                attended, _ = reference[f"attn{block}"](query, vit_tokens[:, 1:], vit_tokens[:, 1:])
                query = reference[f"norm{block}"](attended)
            torch.testing.assert_close(query[:, 0], model.router.pool(vit_tokens), atol=1e-5, rtol=1e-5)
    finally:
        reference.load_state_dict(trained)


@pytest.mark.parametrize(
    ("decoder", "vision", "with_flash"),
    [("qwen2", "300m", True), ("qwen2-tied", "6b", True), ("qwen3_moe", "6b", True), ("llama", "300m", False)],
)
def test_released_to_ours_to_released(layouts, tmp_path, tokenizer, decoder, vision, with_flash):
    reference = layouts.build_released(tmp_path / "released", decoder, vision, flash=with_flash, max_dynamic_patch=7)
    load(tmp_path / "released").save_pretrained(tmp_path / "ours")
    save_released(load(tmp_path / "ours"), tokenizer, tmp_path / "again")
    found = load_file(tmp_path / "again" / "model.safetensors")
    assert_equal_tensors(without_dead(found), without_dead(reference.tensors))
    values, original = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("again", "released"))
    added_by_the_authors = {"auto_map", "transformers_version"}
    assert values.keys() == original.keys() - added_by_the_authors
    parts = {"llm_config", "vision_config", "tie_word_embeddings"}
    assert {name: values[name] for name in values.keys() - parts} == {
        name: original[name] for name in values.keys() - parts
    }
    assert values["tie_word_embeddings"] is (decoder == "qwen2-tied")  # as the authors' configuration code sets it
    # Settings of the authors' training have no place here; what the original leaves to defaults is written out.
    for part, theirs in (("llm_config", {"moe_config", "ep_size"}), ("vision_config", {"auto_map", "drop_path_rate"})):
        said = {name: value for name, value in original[part].items() if name not in theirs | {"use_flash_attn"}}
        assert {name: values[part][name] for name in said} == said
    before, after = (find_checkpoint(str(tmp_path / name)).config.to_dict() for name in ("released", "again"))
    assert after["text_config"] == before["text_config"]
    assert after["vision_config"] == before["vision_config"]


def test_the_hf_layout_becomes_the_released(layouts, pixels, tmp_path, tokenizer):
    theirs = layouts.build_hf(tmp_path / "hf", "qwen2-tied", "6b", tie_word_embeddings=True)
    save_released(load(tmp_path / "hf"), tokenizer, tmp_path / "out")
    values = json.loads((tmp_path / "out" / "config.json").read_text())
    # LMDeploy builds the parts of Flash wherever flash_mode is there, false or not.
    assert not any("flash" in name for name in values)
    assert "language_model.lm_head.weight" not in load_file(tmp_path / "out" / "model.safetensors")
    ids = layouts.prompt_ids(8)
    with torch.inference_mode():
        expected = theirs(input_ids=ids, pixel_values=pixels).logits
        found = load(tmp_path / "out", layouts.IMAGE_TOKEN_ID)(ids, pixels).logits
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_shards_hold_every_tensor_once_and_load(layouts, tmp_path, tokenizer):
    reference = layouts.build_released(tmp_path / "released", "qwen3_moe", flash=True)
    save_released(load(tmp_path / "released"), tokenizer, tmp_path / "out", max_shard_size="100KB")
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    shards = sorted((tmp_path / "out").glob("*.safetensors"))
    assert len(shards) > 3
    assert sorted(set(index["weight_map"].values())) == [file.name for file in shards]
    found = {}
    for file in shards:
        with safe_open(file, "pt") as opened:
            assert {index["weight_map"][name] for name in opened.keys()} == {file.name}
        found |= load_file(file)
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in found.values())
    assert_equal_tensors(without_dead(found), without_dead(reference.tensors))
    again = load(tmp_path / "out").state_dict()
    assert_equal_tensors(again, load(tmp_path / "released").state_dict())


def test_no_weight_is_copied_before_its_shard_is_written(layouts, tmp_path):
    layouts.build_released(tmp_path, "qwen3_moe", flash=True)
    model = load(tmp_path)
    own = {tensor.untyped_storage().data_ptr() for tensor in model.state_dict().values()}
    parts = [part for parts in _released_weights(model).values() for part in parts]
    assert {part.untyped_storage().data_ptr() for part in parts} <= own


def export(capsys, *arguments):
    """Exit status and stderr of the command, progress bars left out."""
    try:
        main(["train", "export", *map(str, arguments)])
    except SystemExit as stop:
        status = stop.code or 0
    else:
        status = 0
    captured = capsys.readouterr()
    assert captured.out == ""
    return status, "\n".join(line for line in captured.err.splitlines() if not line.startswith("Loading weights"))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("vico-tiny-base", {"method": "vanilla"}), ("vico-tiny", {"method": "vico", "absolute_only": True})],
)
def test_an_exported_checkpoint_answers_as_before(capsys, tmp_path, name, arguments):
    status, err = export(capsys, name, tmp_path / "out")
    assert status == 0
    assert err.endswith(f"Written: {tmp_path / 'out'}/")
    image = Image.linear_gradient("L").resize((224, 112)).convert("RGB")
    models = [vico_eval.load(str(pretrained), device="cpu", **arguments) for pretrained in (name, tmp_path / "out")]
    before, after = (
        model.ask("What number is shown?", images=[image, image.rotate(90)], max_new_tokens=12) for model in models
    )
    assert after == before
    assert before.text
    first, second = (model.engine.model.state_dict() for model in models)
    assert_equal_tensors(second, {name: tensor for name, tensor in first.items() if "image_router" not in name})
    if name == "vico-tiny":
        assert 0 < before.account.compressed_tiles < before.account.tiles


def test_what_is_lost_is_said(capsys, tmp_path):
    _, err = export(capsys, "vico-tiny", tmp_path / "out")
    notes = [line for line in err.splitlines() if line.startswith("Note: ")]
    expected = ("image-level router", "relative rule is off", "16 or 4 visual tokens", "system message", "num_frames=8")
    expected += ("saved by transformers 5",)
    assert len(notes) == len(expected)
    for note, words in zip(notes, expected, strict=True):
        assert words in note
    assert export(capsys, GOLDEN, tmp_path / "golden")[0] == 1  # it has no tokenizer
    assert not_in_released(find_checkpoint(str(GOLDEN)).config) == []


def test_files_beside_the_weights_are_as_in_a_release(capsys, tmp_path):
    folder = find_checkpoint("vico-tiny").folder
    source = tmp_path / "source"
    shutil.copytree(folder, source)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["additional_special_tokens"] = settings.pop("extra_special_tokens")
    # A tokenizer as transformers 4 saves it, indented as no program here would.
    (source / "tokenizer_config.json").write_text(
        json.dumps(settings | {"tokenizer_class": "PreTrainedTokenizerFast"}, indent=7)
    )
    (source / "vocab.json").write_text("{}")
    for name, arguments in (("plain", ()), ("mapped", ("--auto-map",))):
        status, err = export(capsys, source, tmp_path / name, *arguments)
        assert status == 0
        assert "transformers 5" not in err
        for file in ("tokenizer.json", "tokenizer_config.json", "vocab.json"):
            assert (tmp_path / name / file).read_bytes() == (source / file).read_bytes()
        processor = json.loads((tmp_path / name / "preprocessor_config.json").read_text())
        assert (processor["size"], processor["image_mean"]) == (56, [0.485, 0.456, 0.406])
    plain, mapped = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("plain", "mapped"))
    assert "auto_map" not in plain
    assert mapped.pop("auto_map") == {
        "AutoConfig": "configuration_internvl_chat.InternVLChatConfig",
        "AutoModel": "modeling_internvl_chat.InternVLChatModel",
        "AutoModelForCausalLM": "modeling_internvl_chat.InternVLChatModel",
    }
    assert mapped == plain


def test_a_relative_rule_that_is_off_comes_nearest_as_zero():
    config = find_checkpoint("vico-tiny").config
    assert config.parts["router"]["relative_threshold"] is None
    written = released_config(config, torch.bfloat16)
    relative, absolute = written["flash_relative_threshold"], written["flash_absolute_threshold"]
    scores = torch.tensor([0.9, 0.75, 0.72, 0.3, 0.8])
    assert compress_tiles(scores, None, absolute).tolist() == [True, True, True, False, True]
    assert compress_tiles(scores, relative, absolute).tolist() == [True, True, True, False, True]
    # The honest part of the note: only where the lowest score would be compressed too do the two part.
    assert compress_tiles(scores[:3], None, absolute).tolist() == [True, True, True]
    assert compress_tiles(scores[:3], relative, absolute).tolist() == [True, True, False]
    assert compress_tiles(scores[:1], relative, absolute).tolist() == [False]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parts": {"pvtc": {}}}, "PVTC"),
        ({"parts": {"low_connector": {}}}, "has a low connector and no router"),
        ({"parts": {"router": {}}}, "has a router and no low connector"),
        ({"router_num_heads": 8}, "8 attention heads"),
    ],
)
def test_what_the_layout_has_no_place_for_is_refused(changes, message):
    config = find_checkpoint("vico-tiny").config
    for name, value in changes.items():
        setattr(config, name, value)
    with pytest.raises(CheckpointError, match=message):
        not_in_released(config)


def test_lvtc_is_refused_before_anything_is_written(capsys, tmp_path):
    status, err = export(capsys, "internvl-x-tiny-lvtc", tmp_path / "out")
    assert status == 1
    assert "LVTC's projectors" in err
    assert list(tmp_path.iterdir()) == []


def test_a_weight_of_another_architecture_is_named(flash, tmp_path, tokenizer):
    model = load(flash.folder)
    model.vision_tower.embeddings.mask_token = torch.nn.Parameter(torch.zeros(1, 1, 32))
    with pytest.raises(CheckpointError, match=r"no place for vision_tower\.embeddings\.mask_token"):
        save_released(model, tokenizer, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_use_is_refused(capsys, tmp_path):
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("used", "file"):
        status, err = export(capsys, "vico-tiny", tmp_path / name)
        assert status == 1
        assert f"{tmp_path / name} already exists" in err
    assert (tmp_path / "used" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("error", "raised"), [(KeyboardInterrupt(), KeyboardInterrupt), (OSError("No space left"), OutputError)]
)
def test_an_interrupted_export_leaves_nothing_that_loads(flash, tokenizer, tmp_path, error, raised):
    def stop(folder):
        assert (folder / "model.safetensors").is_file()
        # What a process killed here would leave.
        with pytest.raises(CheckpointError, match=r"no config\.json"):
            find_checkpoint(str(folder))
        raise error

    model = load(flash.folder)
    (tmp_path / "out").mkdir()
    with pytest.raises(raised):
        save_released(model, stop, tmp_path / "out")
    assert [*tmp_path.iterdir(), *(tmp_path / "out").iterdir()] == [tmp_path / "out"]
    save_released(model, tokenizer, tmp_path / "out")
    assert find_checkpoint(str(tmp_path / "out")).config.parts.keys() >= {"router"}
