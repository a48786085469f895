"""Checkpoints that both evaluators can load, and a task with two questions per image."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from datasets import Dataset, Features, Image, Value
from torch import nn
from transformers import (
    AutoTokenizer,
    GotOcr2ImageProcessor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    InternVLVideoProcessor,
)

from vico_eval.bench.random_models import flash_config
from vico_eval.families.internvl.checkpoint import find_checkpoint, load_model
from vico_eval.families.internvl.config import VicoInternVLConfig
from vico_eval.families.internvl.modeling import VicoInternVL
from vico_eval.paths import models_dir, tasks_dir
from vico_eval.tiny.scenes import make_scene

PAIRS = "two_questions"
"""A task with two questions about each image, as in MME."""

# This package's prompt for the built-in model: an empty system message, the image placeholder, then the question.
TEMPLATE = (
    "<|im_start|>system\n<|im_end|>\n"
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] in ('image', 'image_url') %}{{ '<IMG_CONTEXT>\n' }}{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TOKENS = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}


def tiny_model() -> InternVLForConditionalGeneration:
    """Load the built-in base model as transformers' class."""
    ours = load_model(find_checkpoint("vico-tiny-base"))
    model = InternVLForConditionalGeneration(_hf_config(ours.config))
    nn.Module.to(model, torch.bfloat16)
    _take_weights(model, ours)
    return model


def random_model(size: str, device: str) -> InternVLForConditionalGeneration:
    """Build a random model with InternVL3.5's sizes, but the built-in tokenizer's vocabulary, so that answers are text.

    Args:
        size: the decoder's size, a name in `SIZES`.
        device: the device on which random numbers are drawn.
    """
    torch.manual_seed(0)
    config = flash_config(size)
    small = find_checkpoint("vico-tiny-base").config.text_config
    for name in ("vocab_size", "eos_token_id", "pad_token_id"):
        setattr(config.text_config, name, getattr(small, name))
    with torch.device(device):
        model: InternVLForConditionalGeneration = InternVLForConditionalGeneration._from_config(
            _hf_config(config), dtype=torch.bfloat16
        )
    return model


def _hf_config(config: VicoInternVLConfig) -> InternVLConfig:
    assert config.image_token_id is not None
    return InternVLConfig(
        vision_config=config.vision_config.to_dict(),
        text_config=config.text_config.to_dict(),
        image_token_id=config.image_token_id,
        downsample_ratio=config.downsample_ratio,
        image_seq_length=config.num_high_tokens,
    )


def _take_weights(model: InternVLForConditionalGeneration, ours: VicoInternVL) -> None:
    theirs: Any = model.model
    decoder: Any = ours.language_model
    connector: Any = ours.connector_high
    projector = theirs.multi_modal_projector
    for mine, other in (
        (theirs.vision_tower, ours.vision_tower),
        (theirs.language_model, decoder.model),
        (projector.layer_norm, connector.norm),
        (projector.linear_1, connector.linear_1),
        (projector.linear_2, connector.linear_2),
    ):
        mine.load_state_dict(other.state_dict())
    model.tie_weights()


def save_checkpoint(model: InternVLForConditionalGeneration, max_tiles: int, folder: Path) -> None:
    """Save model and processor in transformers' layout, which both evaluators read."""
    tokenizer = AutoTokenizer.from_pretrained(
        models_dir() / "vico-tiny-base", extra_special_tokens=TOKENS, trust_remote_code=False
    )
    model.resize_token_embeddings(len(tokenizer))  # the processor adds tokens for videos that the model lacks
    model.save_pretrained(folder)
    vision: Any = model.config.vision_config
    side = vision.image_size[0]
    pictures: dict[str, Any] = {
        "size": {"height": side, "width": side},
        "do_convert_rgb": True,
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
    }
    InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(crop_to_patches=True, min_patches=1, max_patches=max_tiles, **pictures),
        tokenizer=tokenizer,
        video_processor=InternVLVideoProcessor(**pictures),
        image_seq_length=model.config.image_seq_length,
        chat_template=TEMPLATE,
    ).save_pretrained(folder)


def save_pairs(folder: Path) -> None:
    """Write the task `PAIRS`: one image of the built-in benchmark, two tiles wide, with two questions."""
    scene = make_scene("doc", np.random.default_rng(0), (2, 1))
    lines = [{"image_1": scene.images[0], "question": one.text, "answer": one.answer} for one in scene.questions[:2]]
    features = Features({"image_1": Image(), "question": Value("string"), "answer": Value("string")})
    folder.mkdir()
    Dataset.from_list(lines, features=features).to_parquet(folder / "test.parquet")
    for name in ("_shared.yaml", "utils.py"):
        shutil.copy(tasks_dir() / "tiny" / name, folder)
    task = {"include": "_shared.yaml", "task": PAIRS, "dataset_kwargs": {"data_files": {"test": "test.parquet"}}}
    (folder / f"{PAIRS}.yaml").write_text(yaml.safe_dump(task), encoding="utf-8")
