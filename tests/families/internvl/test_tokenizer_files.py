"""An exported tokenizer is the checkpoint's own, byte for byte, or is read by transformers 4 as by 5."""

import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from vico_eval.errors import CheckpointError
from vico_eval.families.internvl.checkpoint import find_checkpoint
from vico_eval.families.internvl.tokenizer_files import TOKENIZER_FILES, export_tokenizer, is_of_transformers_5

# What transformers 4 writes of the same tokenizer; names and kinds of values are those of InternVL3.5's releases.
OF_TRANSFORMERS_4 = {
    "added_tokens_decoder": {
        "256": {
            "content": "<|endoftext|>",
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": True,
        }
    },
    "additional_special_tokens": ["<|im_start|>", "<img>", "</img>", "<IMG_CONTEXT>"],
    "clean_up_tokenization_spaces": False,
    "eos_token": "<|im_end|>",
    "extra_special_tokens": {},
    "model_max_length": 8192,
    "pad_token": "<|endoftext|>",
    "tokenizer_class": "PreTrainedTokenizerFast",
}
TEXT = "<|im_start|>user\n<img><IMG_CONTEXT></img>\nGrüße<|im_end|>"
IDS = [257, 117, 115, 101, 114, 10, 259, 261, 260, 10, 71, 114, 195, 188, 195, 159, 101, 258]
"""Of the text, by transformers 4.57.6 from an exported `vico-tiny`."""

SPECIAL_TOKENS = {"<|im_end|>", "<|endoftext|>", "<|im_start|>", "<img>", "</img>", "<IMG_CONTEXT>"}
"""`all_special_tokens` of the same."""


def assert_can_be_read_by_transformers_4(folder: Path):
    """Raise where transformers 4.57's `PreTrainedTokenizerBase` would: found by loading such folders with it."""
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    assert isinstance(settings.get("extra_special_tokens", {}), dict)  # or: 'list' object has no attribute 'keys'
    assert settings["tokenizer_class"] != "TokenizersBackend"  # or: Tokenizer class TokenizersBackend does not exist
    assert isinstance(settings.get("additional_special_tokens", []), list)


def test_files_of_a_release_are_copied_byte_for_byte(tmp_path):
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    out.mkdir()
    for number, name in enumerate(TOKENIZER_FILES):
        (source / name).write_bytes(b'{"of": "%d"}\r\n\xc3\xa9 ' % number)
    (source / "tokenizer_config.json").write_text(json.dumps(OF_TRANSFORMERS_4, indent=1) + "\n\n")
    for name in ("config.json", "tokenization_internlm2.py", "model.safetensors"):
        (source / name).write_text("not the tokenizer's")
    assert not is_of_transformers_5(source)
    export_tokenizer(source, out)
    assert sorted(file.name for file in out.iterdir()) == sorted(TOKENIZER_FILES)
    for name in TOKENIZER_FILES:
        assert (out / name).read_bytes() == (source / name).read_bytes()
    assert_can_be_read_by_transformers_4(out)


def test_what_transformers_5_saved_is_said_in_words_of_4(tmp_path):
    source = find_checkpoint("vico-tiny").folder
    assert is_of_transformers_5(source)
    with pytest.raises(AssertionError):
        assert_can_be_read_by_transformers_4(source)
    export_tokenizer(source, tmp_path)
    assert_can_be_read_by_transformers_4(tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    said = {name: value for name, value in OF_TRANSFORMERS_4.items() if name in settings}
    assert {name: settings[name] for name in said} == said
    assert settings["additional_special_tokens"] == OF_TRANSFORMERS_4["additional_special_tokens"]
    assert (tmp_path / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()
    for folder in (source, tmp_path):
        tokenizer = AutoTokenizer.from_pretrained(folder)
        assert tokenizer(TEXT).input_ids == IDS
        assert tokenizer.decode(IDS, skip_special_tokens=True) == "user\n\nGrüße"
        assert tokenizer.eos_token_id == 258
        assert set(tokenizer.all_special_tokens) == SPECIAL_TOKENS


@pytest.mark.parametrize("content", ["{", "[1]", "null"])
def test_settings_that_cannot_be_read_are_named(tmp_path, content):
    shutil.copyfile(find_checkpoint("vico-tiny").folder / "tokenizer.json", tmp_path / "tokenizer.json")
    (tmp_path / "tokenizer_config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"tokenizer_config\.json can't be read as a JSON object"):
        is_of_transformers_5(tmp_path)
