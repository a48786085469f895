"""The byte-level tokenizer, before and after it was saved."""

from __future__ import annotations

import pytest
from transformers import AutoTokenizer

from vico_eval.tiny.tokenizer import SPECIAL_TOKENS, build_tokenizer

TEXTS = [
    "Number? 123",
    " spaces  at  both  ends ",
    "tab\tnewline\r\n\x00\x7f",
    "don't . , ! ?",
    "Größe 漢字 हिन्दी 😀 \u200b",
    "".join(map(chr, range(0x80, 0x180))),
]


@pytest.fixture(scope="module", params=["built", "saved"])
def tokenizer(request, tmp_path_factory):
    built = build_tokenizer()
    if request.param == "built":
        return built
    folder = tmp_path_factory.mktemp("tokenizer")
    built.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_bytes_and_text_comes_back(tokenizer, text):
    ids = tokenizer(text).input_ids
    assert ids == list(text.encode())
    assert tokenizer.decode(ids) == text


def test_special_tokens_are_found_within_text(tokenizer):
    text = "<|im_start|>user\n<img><IMG_CONTEXT><IMG_CONTEXT></img>a<|im_end|><|endoftext|>"
    image = tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>")
    ids = tokenizer(text).input_ids
    assert ids.count(image) == 2
    assert len(ids) == 1 + len("user\n") + 4 + len("a") + 2
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode(ids, skip_special_tokens=True) == "user\na"


def test_ids_of_special_tokens(tokenizer):
    assert tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)) == list(range(256, 262))
    assert (tokenizer.eos_token, tokenizer.pad_token, tokenizer.bos_token) == ("<|im_end|>", "<|endoftext|>", None)
    assert len(tokenizer) == 262
