"""Training of the built-in small models from a recipe: `vico-eval train tiny RECIPE --out DIR`.

Each stage starts from the previous stage's output in DIR and writes its own there. `--stage` selects stages, and
`--resume` continues stages that were stopped. ViCO's own two stages come between `corpus` and `calibration` and run as
for any other checkpoint: `vico-eval train consistency` and `vico-eval train router`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vico_eval.tiny.tokenizer import build_tokenizer
from vico_eval.training.small.architecture import build_config
from vico_eval.training.small.loop import opened, training_in
from vico_eval.training.small.recipe import Recipe, StageName
from vico_eval.training.small.vico_tiny.calibrate import calibrate
from vico_eval.training.small.vico_tiny.stages import RecipeRun, make_corpus, train_base, train_dense

STAGE_FUNCTIONS: dict[StageName, Callable[[RecipeRun], None]] = {
    "dense": train_dense,
    "base": train_base,
    "corpus": make_corpus,
    "calibration": calibrate,
}


def train(recipe: Recipe, out: Path, stages: tuple[StageName, ...], resume: bool = False) -> None:
    """Run stages of a recipe in order; every process of a training makes the same call.

    Raises:
        CheckpointError: the output of an earlier stage is missing, damaged or from another recipe.
        NotFinite: a stage computed a number that is not finite.
        OutputError: another training is writing into `out`.
        Stopped: SIGTERM or Ctrl-C; with `resume` the stage continues.
    """
    with opened(out) as accelerator:
        tokenizer = build_tokenizer()
        training = training_in(out, accelerator, recipe.seed, {"model": recipe.model.model_dump(mode="json")})
        run = RecipeRun(recipe, training, resume, tokenizer, build_config(recipe.model, tokenizer))
        for stage in stages:
            STAGE_FUNCTIONS[stage](run)
            accelerator.wait_for_everyone()
