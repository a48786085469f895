"""A recipe small enough to run every stage in seconds, and the models it makes."""

from __future__ import annotations

import pytest
from transformers import PreTrainedTokenizerBase

from vico_eval.families.internvl.modeling import VicoInternVL
from vico_eval.tiny.tokenizer import build_tokenizer
from vico_eval.training.architecture import build_config, build_model
from vico_eval.training.recipe import Recipe

TEXT_STAGE = {"steps": 3, "learning_rate": 0.001, "num_tokens": 700, "num_parts": 2, "save_every": 2}
BASE_STAGE = {**TEXT_STAGE, "optimizer": "muon", "vision_from_step": 1, "align_steps": 2, "lookup_steps": 3}


@pytest.fixture(scope="session")
def micro_recipe() -> Recipe:
    return Recipe.model_validate(
        {
            "seed": 3,
            "processes": 1,
            "model": {
                "vision_width": 32,
                "vision_layers": 1,
                "vision_mlp_width": 32,
                "text_width": 32,
                "text_layers": 1,
                "text_heads": 2,
                "text_kv_heads": 2,
                "text_head_width": 16,
                "text_mlp_width": 32,
                "router_heads": 4,
            },
            "dense": {"steps": 3, "learning_rate": 0.001, "num_tiles": 4, "num_parts": 2, "save_every": 2},
            "base": BASE_STAGE,
            "corpus": {"samples_per_task": 3},
            "calibration": {"num_documents": 9, "compressed_tile_ratio": 0.6},
        }
    )


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerBase:
    return build_tokenizer()


@pytest.fixture(scope="session")
def micro_model(micro_recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> VicoInternVL:
    return build_model(build_config(micro_recipe.model, tokenizer), seed=0).eval()
