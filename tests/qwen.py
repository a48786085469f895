"""Small random checkpoints of Qwen2.5-VL and Qwen3-VL, with tokenizer, chat template and processors."""

import json
from pathlib import Path

import torch
from tokenizers import AddedToken
from torch import nn
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLMoeConfig,
    Qwen3VLMoeForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from vico_eval.tiny.tokenizer import build_tokenizer

KINDS = ("qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe")
VISION_TOKENS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")

_TURNS = """{% for message in messages %}<|im_start|>{{ message['role'] }}
{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}\
{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>\
{% elif part['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>\
{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
"""
TEMPLATES = {
    "qwen2_5_vl": "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% endif %}" + _TURNS + "{% endif %}",
    "qwen3_vl": _TURNS + "{% endif %}",
    "thinking": _TURNS + "<think>\n{% endif %}",
}

TEXT = {
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": False,
    "dtype": "float32",
}
QWEN2_5_VISION = {
    "depth": 4,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_heads": 2,
    "out_hidden_size": 48,
    "patch_size": 14,
    "window_size": 56,
    "fullatt_block_indexes": [1, 3],
    "tokens_per_second": 4,
}
QWEN3_VISION = {
    "depth": 4,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_heads": 2,
    "out_hidden_size": 48,
    "patch_size": 16,
    "num_position_embeddings": 64,
    "deepstack_visual_indexes": [0, 2],
}


def build_qwen(folder: Path, kind: str, *, thinking: bool = False, num_layers: int = 6, **saving) -> Path:
    """Write a checkpoint of `kind` with seeded random weights and return its folder."""
    torch.manual_seed(0)
    processor = _processor(kind, thinking)
    vocabulary = processor.tokenizer.get_vocab()
    ids = {
        "image_token_id": vocabulary["<|image_pad|>"],
        "video_token_id": vocabulary["<|video_pad|>"],
        "vision_start_token_id": vocabulary["<|vision_start|>"],
        "vision_end_token_id": vocabulary["<|vision_end|>"],
        "tie_word_embeddings": False,
    }
    text = TEXT | {"vocab_size": max(vocabulary.values()) + 1, "num_hidden_layers": num_layers}
    if kind == "qwen2_5_vl":
        rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
        config = Qwen2_5_VLConfig(text_config=text | {"rope_parameters": rope}, vision_config=QWEN2_5_VISION, **ids)
        model = Qwen2_5_VLForConditionalGeneration(config)
    else:
        rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1], "mrope_interleaved": True}
        text |= {"head_dim": 8, "rope_parameters": rope}
        if kind == "qwen3_vl":
            config = Qwen3VLConfig(text_config=text, vision_config=QWEN3_VISION, **ids)
            model = Qwen3VLForConditionalGeneration(config)
        else:
            text |= {"num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 20}
            config = Qwen3VLMoeConfig(text_config=text, vision_config=QWEN3_VISION, **ids)
            model = Qwen3VLMoeForConditionalGeneration(config)
    _randomise(model, vocabulary)
    model.float().save_pretrained(folder, **saving)
    processor.save_pretrained(folder)
    return Path(folder)


def _randomise(model: nn.Module, vocabulary: dict[str, int]) -> None:
    """Random everywhere: with the initial zeros and ones a swapped bias or scale would not be seen."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(0.0, 0.25)
            if parameter.dim() == 1 and "bias" not in name:
                parameter.add_(1.0)
        # Tokens that are no printable ASCII are not chosen, so that answers can be told apart.
        printable = [*range(32, 127)]
        head = model.get_output_embeddings().weight
        unprintable = torch.ones(len(head), dtype=torch.bool)
        unprintable[printable] = False
        head[unprintable] = 0


def _processor(kind: str, thinking: bool):
    tokenizer = build_tokenizer()
    tokenizer.add_special_tokens(
        {"additional_special_tokens": [AddedToken(token, normalized=False, special=True) for token in VISION_TOKENS]}
    )
    template = TEMPLATES["thinking" if thinking else "qwen2_5_vl" if kind == "qwen2_5_vl" else "qwen3_vl"]
    if kind == "qwen2_5_vl":
        sizes = {"patch_size": 14, "size": {"shortest_edge": 4 * 28 * 28, "longest_edge": 64 * 28 * 28}}
        return Qwen2_5_VLProcessor(
            Qwen2VLImageProcessor(**sizes), tokenizer, Qwen2VLVideoProcessor(**sizes), chat_template=template
        )
    sizes = {"patch_size": 16, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    return Qwen3VLProcessor(
        Qwen2VLImageProcessor(**sizes, size={"shortest_edge": 4 * 32 * 32, "longest_edge": 64 * 32 * 32}),
        tokenizer,
        Qwen3VLVideoProcessor(**sizes, size={"shortest_edge": 4 * 32 * 32, "longest_edge": 128 * 32 * 32}),
        chat_template=template,
    )


def config_of(folder: Path) -> dict:
    """What its config.json says."""
    return json.loads((folder / "config.json").read_text())
