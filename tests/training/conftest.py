"""Recipes and configurations small enough to run every stage in seconds, the models they make, and a small corpus."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from accelerate.state import AcceleratorState, GradientState
from transformers import PreTrainedTokenizerBase

from vico_eval.families.internvl.modeling import VicoInternVL
from vico_eval.tiny.scenes import make_scene
from vico_eval.tiny.tokenizer import build_tokenizer
from vico_eval.training.config import ConsistencyConfig, RouterConfig
from vico_eval.training.small.architecture import build_config, build_model
from vico_eval.training.small.export import save_base
from vico_eval.training.small.recipe import Recipe
from vico_eval.training.stages import train_consistency

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


TASKS = ("read", "count", "compare", "colour")


def forget_accelerate() -> None:
    """Accelerate remembers a process's first settings; what follows is to be a process of its own."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


@pytest.fixture(autouse=True)
def fresh_process():
    yield
    forget_accelerate()


@pytest.fixture(scope="session")
def base_checkpoint(micro_model, tokenizer, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    save_base(micro_model, tokenizer, folder)
    with (folder / "tokenizer_config.json").open("a") as file:
        file.write("\n\n")  # as nothing here would write it, so that a copy can be told from a file that was made anew
    return folder


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Path:
    """meta.json of 28 samples: pictures, pairs of pictures, words alone."""
    folder = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    lines: list[dict[str, Any]] = []
    for number in range(24):
        scene = make_scene(TASKS[number % len(TASKS)], rng)
        names = [f"{number}-{place}.png" for place in range(len(scene.images))]
        for name, image in zip(names, scene.images, strict=True):
            image.save(folder / name)
        asked = "<image>\n" * len(names) + scene.questions[0].text
        turns = [{"from": "human", "value": asked}, {"from": "gpt", "value": scene.questions[0].answer}]
        lines.append({"id": number, "image": names, "conversations": turns})
    for number in range(4):
        turns = [{"from": "human", "value": f"{number} + 1?"}, {"from": "gpt", "value": str(number + 1)}]
        lines.append({"id": 100 + number, "conversations": turns})
    (folder / "all.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    meta = {"small": {"root": str(folder), "annotation": str(folder / "all.jsonl"), "data_augment": False}}
    (folder / "meta.json").write_text(json.dumps(meta))
    return folder / "meta.json"


def run_settings(base: Path, corpus: Path, out: Path, **changes: Any) -> dict[str, Any]:
    return {
        "checkpoint": str(base),
        "out": out,
        "data": {"sources": [{"meta": str(corpus)}], "held_out_share": 0.2, "workers": 1, "max_length": 2000},
        "global_batch": 4,
        "micro_batch": 2,
        "precision": "fp32",
        "logit_chunk": 5,
        "held_out_samples": 4,
        "saving": {"every": 2, "keep_best": 1},
        **changes,
    }


OPTIMIZER = {"steps": 4, "learning_rate": 1e-3, "final_learning_rate": 1e-4}
STAGE_ONE = {"warmup": OPTIMIZER | {"steps": 2}, "train": OPTIMIZER}


@pytest.fixture
def consistency_settings(base_checkpoint, corpus, tmp_path) -> dict[str, Any]:
    return run_settings(base_checkpoint, corpus, tmp_path / "stage1", **STAGE_ONE)


@pytest.fixture(scope="session")
def stage_one(base_checkpoint, corpus, tmp_path_factory) -> Path:
    """`out` of an uninterrupted run of stage 1; nothing may be changed in it."""
    out = tmp_path_factory.mktemp("stage1")
    train_consistency(ConsistencyConfig.model_validate(run_settings(base_checkpoint, corpus, out, **STAGE_ONE)))
    forget_accelerate()
    return out


@pytest.fixture
def router_settings(base_checkpoint, corpus, stage_one, tmp_path) -> dict[str, Any]:
    return run_settings(
        base_checkpoint,
        corpus,
        tmp_path / "stage2",
        policy=str(stage_one / "model"),
        train={"steps": 4, "learning_rate": 1e-3},
        burn_in=4,
    )


@pytest.fixture
def router_config(router_settings) -> RouterConfig:
    return RouterConfig.model_validate(router_settings)
