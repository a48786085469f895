"""Train the built-in small models from a recipe: `vico-eval train tiny RECIPE --out DIR`.

Each stage starts from the weights that the one before left in DIR and leaves its own there; `--stage` runs some of
them, `--resume` continues stages that were stopped. The last one writes DIR/vico-tiny-base and DIR/vico-tiny.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from vico_eval.tiny.tokenizer import build_tokenizer
from vico_eval.training.architecture import build_config
from vico_eval.training.calibrate import calibrate
from vico_eval.training.processes import launch, wait
from vico_eval.training.recipe import STAGES, Recipe, StageName
from vico_eval.training.router_stage import train_router
from vico_eval.training.stages import Run, train_base, train_consistency, train_dense, train_warmup

STAGE_FUNCTIONS: dict[StageName, Callable[[Run], None]] = {
    "dense": train_dense,
    "base": train_base,
    "warmup": train_warmup,
    "consistency": train_consistency,
    "router": partial(train_router, stage="router"),
    "image_router": partial(train_router, stage="image_router"),
    "calibration": calibrate,
}


def train(recipe: Recipe, out: Path, stages: tuple[StageName, ...] = STAGES, resume: bool = False) -> None:
    """Run stages of a recipe in order, in as many processes as it names."""
    launch(recipe.processes, run_stages, recipe, out, stages, resume)


def run_stages(recipe: Recipe, out: Path, stages: tuple[StageName, ...], resume: bool) -> None:
    """The part of one process; every process of a run calls this alike."""
    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer()
    run = Run(recipe, out, resume, tokenizer, build_config(recipe.model, tokenizer))
    for stage in stages:
        STAGE_FUNCTIONS[stage](run)
        wait()
