"""The small model: InternVL's architecture with about a hundredth of the width."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_model, save_model
from torch import nn
from transformers import PreTrainedTokenizerBase, Qwen3Config
from transformers.models.internvl import InternVLVisionConfig

from vico_eval.errors import CheckpointError
from vico_eval.families.internvl.config import VicoInternVLConfig
from vico_eval.families.internvl.modeling import VicoInternVL
from vico_eval.families.internvl.prompts import IMAGE_TOKEN
from vico_eval.training.saving.files import weights_problem, whole_file
from vico_eval.training.small.recipe import ModelRecipe

POSITION_STD = 0.05
DECODER_STD = 0.02


def build_config(recipe: ModelRecipe, tokenizer: PreTrainedTokenizerBase) -> VicoInternVLConfig:
    """Return the small model's configuration, with all of ViCO's parts."""
    return VicoInternVLConfig(
        vision_config=InternVLVisionConfig(
            hidden_size=recipe.vision_width,
            num_hidden_layers=recipe.vision_layers,
            num_attention_heads=recipe.vision_heads,
            intermediate_size=recipe.vision_mlp_width,
            image_size=(recipe.tile_size, recipe.tile_size),
            patch_size=(recipe.patch_size, recipe.patch_size),
            attention_bias=True,
            layer_scale_init_value=1.0,
        ),
        text_config=Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=recipe.text_width,
            num_hidden_layers=recipe.text_layers,
            num_attention_heads=recipe.text_heads,
            num_key_value_heads=recipe.text_kv_heads,
            head_dim=recipe.text_head_width,
            intermediate_size=recipe.text_mlp_width,
            max_position_embeddings=4096,
            tie_word_embeddings=True,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=None,
        ),
        image_token_id=int(tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)),  # type: ignore[arg-type]
        system_message="",
        num_frames=recipe.num_frames,
        router_num_heads=recipe.router_heads,
        parts={"low_connector": {}, "router": {"relative_threshold": None}, "image_router": {}},
    )


def build_model(config: VicoInternVLConfig, seed: int) -> VicoInternVL:
    """Build the small model with seeded random float32 weights.

    The vision encoder's linear weights have a standard deviation of 1/sqrt(inputs), with which it learns the dense task
    right away. The decoder's have transformers' 0.02: with more, the layers' outputs swamp the embeddings in the
    residual stream.
    """
    torch.manual_seed(seed)
    model = VicoInternVL(config)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            is_decoder = name.startswith(("language_model.", "connector_"))
            nn.init.normal_(module.weight, std=DECODER_STD if is_decoder else module.in_features**-0.5)
    nn.init.normal_(model.vision_tower.embeddings.position_embeddings, std=POSITION_STD)
    # The head is tied to the embedding, so this comes after the linear layers.
    nn.init.normal_(model.get_input_embeddings().weight, std=DECODER_STD)
    return model


def save_weights(model: nn.Module, path: Path) -> None:
    """Save all weights to one file, unchanged."""
    with whole_file(path) as unfinished:
        save_model(model, str(unfinished))


def load_weights(model: nn.Module, path: Path) -> None:
    """Load weights written by `save_weights`.

    Raises:
        CheckpointError: the file is missing because an earlier stage has not run, is damaged, or is from another
            recipe.
    """
    if not path.exists():
        raise CheckpointError(f"{path} is missing. Run the stage {path.stem} first, into the same folder.")
    if problem := weights_problem(path):
        raise CheckpointError(f"{path} {problem}. Run the stage {path.stem} again, into the same folder.")
    try:
        load_model(model, str(path))
    except RuntimeError as error:
        raise CheckpointError(f"{path} is from another recipe: {error}") from error
