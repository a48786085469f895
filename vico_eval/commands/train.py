"""`vico-eval train`: training from recipe files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vico_eval.commands.output import check_writable, message_console
from vico_eval.training.recipe import STAGES, load_recipe, parse_stages
from vico_eval.training.tiny import train


def train_tiny(recipe: Path, out: Path, stages: Sequence[str], *, resume: bool) -> None:
    """Run the named stages of a recipe, all of them where `stages` is empty.

    Raises:
        ConfigError: a recipe that can't be read or has an unknown key, or an unknown stage.
        OutputError: `out` can't be written.
    """
    chosen = parse_stages(stages or STAGES)
    settings = load_recipe(recipe)
    check_writable(out)
    train(settings, out, chosen, resume=resume)
    message_console().print(f"Written: {out}/", highlight=False)
