"""Prompts equal the released conversation code's, string for string."""

import json
from pathlib import Path

import pytest
from PIL import Image

from vico_eval.engine.preprocess import Preprocessor
from vico_eval.engine.requests import ImageInput, Message, Request, Text
from vico_eval.errors import ConfigError
from vico_eval.families.internvl.prompting import InternVLPrompting, InternVLSettings
from vico_eval.families.internvl.prompts import THINKING_SYSTEM_MESSAGE, get_template
from vico_eval.tiny.tokenizer import build_tokenizer

CASES = json.loads((Path(__file__).parents[2] / "golden/prompts/expected.json").read_text(encoding="utf-8"))


def parts_of(text, picture):
    """Words and pictures of a text with `<image>` marks."""
    first, *others = text.split("<image>")
    parts = [Text(first)]
    for words in others:
        parts += [ImageInput(picture, is_inline=True), Text(words)]
    return tuple(parts)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['template']}-{case['question'][:12]!r}")
def test_golden_prompt(case):
    picture, tiles = Image.new("RGB", (28, 28)), case["num_patches_list"]
    question = case["question"]
    if case["history"] is None and tiles and "<image>" not in question:
        question = f"<image>\n{question}"  # as the released code does
    messages = [] if case["system"] is None else [Message("system", (Text(case["system"]),))]
    for asked, answered in case["history"] or ():
        messages += [Message("user", parts_of(asked, picture)), Message("assistant", (Text(answered),))]
    messages.append(Message("user", parts_of(question, picture)))
    prompting = InternVLPrompting(InternVLSettings(template=case["template"], tile_size=28))
    prepared = Preprocessor(build_tokenizer(), prompting)(Request("a/b/0", tuple(messages)))
    first, *others = prepared.text.split(prompting.slot)
    written = [f"<img>{'<IMG_CONTEXT>' * count * case['num_image_token']}</img>" for count in tiles]
    pairs = zip(written, others, strict=True)
    assert first + "".join(image + words for image, words in pairs) == case["expected"]


def test_empty_system_message_is_not_the_templates_own():
    text = get_template("internvl2_5").render([("user", "Hi")], "")
    assert text.startswith("<|im_start|>system\n<|im_end|>\n<|im_start|>user\nHi")
    assert get_template("internvl2_5").render([("user", "Hi")]).startswith("<|im_start|>system\n你是书生·万象")


def test_unknown_template_lists_the_known_ones():
    with pytest.raises(ConfigError, match=r"vicuna.*internvl2_5, Hermes-2, internlm2-chat, phi3-chat"):
        get_template("vicuna")


def test_stop_and_markers():
    assert get_template("internvl2_5").stop == "<|im_end|>"
    assert get_template("internvl2_5").markers == ("<|im_start|>", "<|im_end|>")
    assert get_template("phi3-chat").markers == ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")


def test_thinking_message_has_its_paragraphs():
    # The message of the model card: four paragraphs, the think tags named once, no space around it.
    assert len(THINKING_SYSTEM_MESSAGE.split("\n\n")) == 4
    assert THINKING_SYSTEM_MESSAGE.strip() == THINKING_SYSTEM_MESSAGE
    assert "within <think> and </think> tags.\n\n2. After" in THINKING_SYSTEM_MESSAGE
