"""The Python interface, and what is refused before anything is loaded."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from transformers import AutoTokenizer

import vico_eval
from vico_eval.engine.loading import check_tiles, open_engine
from vico_eval.engine.model import Model
from vico_eval.engine.requests import GenerationSettings
from vico_eval.errors import CheckpointError, ConfigError
from vico_eval.methods.interface import ModelFacts


def picture(columns, rows, seed):
    pixels = np.random.default_rng(seed).integers(0, 255, (56 * rows, 56 * columns, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_the_python_interface(untrained, tmp_path):
    picture(4, 3, seed=2).save(tmp_path / "a.png")
    model = vico_eval.load(str(untrained / "vico"), method="all_compress")
    answer = model.ask("Which?", images=[tmp_path / "a.png"], max_new_tokens=4)
    assert isinstance(model, Model)
    assert answer.account.compressed_tiles == 13
    assert json.loads(json.dumps(answer.account.to_dict()))["visual_tokens"] == 13 * 4


def test_one_image_need_not_be_a_list(untrained, tmp_path):
    path = tmp_path / "a.png"
    picture(2, 1, seed=2).save(path)
    model = vico_eval.load(untrained / "base", method="vanilla_vir", flash_from=untrained / "vico", device="cpu")
    several = model.ask("Which?", images=[path], max_new_tokens=2)
    for image in (path, str(path), Image.open(path), path.read_bytes(), (path,), iter([path])):
        assert model.ask("Which?", images=image, max_new_tokens=2) == several
    assert model.ask("Which?", images=[], max_new_tokens=2).account.tiles == 0


def test_in_thinking_mode_python_is_answered_as_the_harnesses_are(untrained):
    model = vico_eval.load(untrained / "vico", thinking=True, device="cpu")
    asked = []
    model.engine.answer = lambda requests: [asked.extend(requests)]
    model.ask("Which?", max_new_tokens=4)
    assert asked[0].generation == GenerationSettings(max_new_tokens=4, do_sample=True, temperature=0.6, top_p=0.95)


def test_a_temperature_that_is_a_whole_number_is_answered(untrained):
    model = vico_eval.load(untrained / "vico", device="cpu")
    assert model.ask("Which?", temperature=2, repetition_penalty=2, max_new_tokens=2).account.generated_tokens in (1, 2)


def test_a_tokenizer_larger_than_the_embedding_is_refused(untrained, tmp_path):
    folder = shutil.copytree(untrained / "vico", tmp_path / "vico")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = json.loads((folder / "config.json").read_text())["text_config"]["vocab_size"]
    tokenizer.add_tokens([f"<extra_{number}>" for number in range(rows - len(tokenizer) + 3)])
    tokenizer.save_pretrained(folder)
    with pytest.raises(CheckpointError, match=rf"has {rows + 3} ids, but the model's embedding has {rows} rows"):
        vico_eval.load(folder)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"method": "vico", "absolute_treshold": 0.5}, ConfigError, r"'absolute_treshold'.*did you mean 'absolute_thr"),
        ({"method": "nothing"}, ConfigError, "unknown method 'nothing'"),
        ({"batch_size": 0}, ConfigError, "batch_size is 0"),
        ({"num_frames": "many"}, ConfigError, "num_frames is 'many'; expected int or None"),
        ({"method": "vanilla_vir"}, ConfigError, "'vanilla_vir' needs flash_from="),
        ({"method": "vico", "flash_from": "vico-tiny"}, ConfigError, "'vico' takes no flash_from"),
        ({"pretrained": "/no/such/folder"}, CheckpointError, "no checkpoint '/no/such/folder'"),
        ({"dtype": "int3"}, ConfigError, "unknown dtype 'int3'"),
        (
            {"attn_implementation": "flex_attention"},
            ConfigError,
            "unknown attn_implementation 'flex_attention'; known: sdpa",
        ),
        # Said before a checkpoint is looked for, or downloaded.
        ({"pretrained": "/no/such", "dtype": "int3"}, ConfigError, "unknown dtype 'int3'"),
        ({"pretrained": "/no/such", "attn_implementation": "paged|sdpa"}, ConfigError, "unknown attn_implementation"),
    ],
)
def test_impossible_arguments_are_refused(untrained, arguments, error, message):
    with pytest.raises(error, match=message):
        open_engine({"pretrained": str(untrained / "vico"), "device": "cpu"} | arguments)


@pytest.mark.parametrize("size", [(1, 1), (4, 1), (2, 3)])
def test_every_picture_has_five_tiles_in_the_account(untrained, size):
    model = vico_eval.load(untrained / "vico", tiles="2x2", device="cpu")
    shown = [picture(*size, seed=1), picture(3, 3, seed=2)]
    account = model.ask("Which?", images=shown, max_new_tokens=2).account
    assert (account.tiles, account.grids) == (10, ((2, 2, 5), (2, 2, 5)))
    assert account.visual_tokens == 10 * 16


@pytest.mark.parametrize(
    ("method", "part"),
    [
        ("single_tile", "SingleTile"),
        ("downsample", "Downsample"),
        ("rvtc_edge", "RvtcEdge"),
        ("vico+rvtc_ratio", "RvtcRatio"),
    ],
)
def test_who_cuts_images_is_said_once(untrained, method, part):
    with pytest.raises(ConfigError, match=rf"got tiles=2x2 and a method whose part {part} chooses .* Leave out tiles"):
        open_engine({"pretrained": str(untrained / "vico"), "method": method, "tiles": "2x2"})


def test_a_checkpoint_without_tiles_has_no_grid():
    facts = ModelFacts(checkpoint="toy", family="toy", num_layers=2, num_heads=2)
    with pytest.raises(CheckpointError, match=r"got tiles=2x2, and checkpoint 'toy' \(toy\) does not cut images"):
        check_tiles("2x2", (), facts)
    check_tiles(None, (), facts)
