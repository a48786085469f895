"""Prompts equal the released conversation code's, string for string."""

import json
from pathlib import Path

import pytest

from vico_eval.errors import ConfigError
from vico_eval.families.internvl.prompts import (
    THINKING_SYSTEM_MESSAGE,
    build_prompt,
    chat_text,
    expand_images,
    get_template,
)

CASES = json.loads((Path(__file__).parents[2] / "golden/prompts/expected.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['template']}-{case['question'][:12]!r}")
def test_golden_prompt(case):
    prompt = build_prompt(
        case["template"],
        case["question"],
        case["num_patches_list"],
        history=case["history"],
        system=case["system"],
        tokens_per_tile=case["num_image_token"],
    )
    assert prompt == case["expected"]


def test_tiles_of_one_image_may_differ():
    text = chat_text("internvl2_5", "A <image> B <image>", num_images=2, system="")
    expanded = expand_images(text, [[3, 1], [2]])
    context = "<IMG_CONTEXT>"
    assert f"A <img>{context * 4}</img> B <img>{context * 2}</img><|im_end|>" in expanded


def test_empty_system_message_is_not_the_templates_own():
    assert chat_text("internvl2_5", "Hi", num_images=0, system="").startswith(
        "<|im_start|>system\n<|im_end|>\n<|im_start|>user\nHi"
    )


def test_history_keeps_its_images_and_the_question_gets_none():
    text = chat_text("internvl2_5", "And?", num_images=1, history=[("<image>\nWhat?", "A cat."), ("Sure?", "Yes.")])
    assert text.count("<image>") == 1
    assert text.index("<image>") < text.index("A cat.") < text.index("Sure?") < text.index("And?")
    assert text.endswith("And?<|im_end|>\n<|im_start|>assistant\n")


def test_unknown_template_lists_the_known_ones():
    with pytest.raises(ConfigError, match=r"vicuna.*internvl2_5, Hermes-2, internlm2-chat, phi3-chat"):
        get_template("vicuna")


@pytest.mark.parametrize("tiles", [[], [1], [1, 1, 1]])
def test_marks_and_images_must_agree(tiles):
    with pytest.raises(ConfigError, match=f"2 places for images.*{len(tiles)} images"):
        build_prompt("internvl2_5", "<image> and <image>", tiles)


def test_stop_and_markers():
    assert get_template("internvl2_5").stop == "<|im_end|>"
    assert get_template("internvl2_5").markers == ("<|im_start|>", "<|im_end|>")
    assert get_template("phi3-chat").markers == ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")


def test_thinking_message_has_its_paragraphs():
    # The message of the model card: four paragraphs, the think tags named once, no space around it.
    assert len(THINKING_SYSTEM_MESSAGE.split("\n\n")) == 4
    assert THINKING_SYSTEM_MESSAGE.strip() == THINKING_SYSTEM_MESSAGE
    assert "within <think> and </think> tags.\n\n2. After" in THINKING_SYSTEM_MESSAGE
