"""`vico-eval train`: training from recipe files, and the export of trained checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from accelerate import PartialState
from torch.distributed import is_torchelastic_launched

from vico_eval.commands.output import check_writable, message_console
from vico_eval.commands.work.launching import launch
from vico_eval.families.internvl.checkpoint import find_checkpoint, load_model, load_tokenizer
from vico_eval.families.internvl.released_config import not_in_released
from vico_eval.families.internvl.released_layout import save_released
from vico_eval.families.internvl.tokenizer_files import export_tokenizer, is_of_transformers_5
from vico_eval.files import check_unused
from vico_eval.training.saving.files import output_errors
from vico_eval.training.small.internvl_x import train as internvl_x
from vico_eval.training.small.internvl_x.recipe import VARIANTS, load_internvl_x_recipe, parse_variants
from vico_eval.training.small.recipe import BEFORE_VICO, load_recipe, parse_stages
from vico_eval.training.small.vico_tiny import train as vico_tiny


def train_tiny(recipe: Path, out: Path, stages: Sequence[str], *, resume: bool) -> None:
    """Run the named stages of a recipe; by default, all stages before ViCO's own.

    Raises:
        ConfigError: the recipe can't be read or has an unknown key, or a stage is unknown.
        OutputError: `out` can't be written.
    """
    chosen = parse_stages(stages or BEFORE_VICO)
    settings = load_recipe(recipe)
    check_writable(out)
    arguments: list[str | Path] = ["tiny", recipe, *(f"--stage={name}" for name in chosen)]
    _train(arguments, settings.processes, out, resume, lambda: vico_tiny.train(settings, out, chosen, resume=resume))


def train_internvl_x(recipe: Path, out: Path, variants: Sequence[str], *, resume: bool) -> None:
    """Train the named variants of a recipe, or all if `variants` is empty.

    Raises:
        ConfigError: the recipe can't be read or has an unknown key, or a variant is unknown.
        CheckpointError: the base checkpoint is missing.
        OutputError: `out` can't be written.
    """
    chosen = parse_variants(variants or VARIANTS)
    settings = load_internvl_x_recipe(recipe)
    check_writable(out)
    arguments: list[str | Path] = ["internvl-x", recipe, *(f"--variant={name}" for name in chosen)]
    _train(arguments, settings.processes, out, resume, lambda: internvl_x.train(settings, out, chosen, resume=resume))


def _train(arguments: Sequence[str | Path], processes: int, out: Path, resume: bool, work: Callable[[], None]) -> None:
    """Do `work` in this process, or run `vico-eval train ARGUMENTS` in several processes, which do it there."""
    if processes > 1 and not is_torchelastic_launched():
        launch([*arguments, "--out", out, *(["--resume"] if resume else [])], processes)
        return
    with output_errors(out):
        work()
    if PartialState().is_main_process:
        message_console().print(f"Written: {out}/", highlight=False)


def export_checkpoint(checkpoint: str, out: Path, *, auto_map: bool) -> None:
    """Write a checkpoint in the layout of InternVL's releases, and print what that layout can't represent.

    Args:
        checkpoint: a folder, a built-in name or a hub id.
        out: a new or empty folder.
        auto_map: refer to the authors' code in `config.json`.

    Raises:
        CheckpointError: the checkpoint is missing, or has parts that the layout can't represent.
        OutputError: `out` is in use or can't be written.
    """
    found = find_checkpoint(checkpoint)
    lost = not_in_released(found.config)
    check_unused(out)
    check_writable(out.absolute().parent)
    load_tokenizer(found)  # rejects a missing or unsupported checkpoint before anything is written
    save_released(load_model(found), partial(export_tokenizer, found.folder), out, auto_map=auto_map)
    if is_of_transformers_5(found.folder):
        lost.append(
            "The tokenizer was saved by transformers 5. Its tokenizer_config.json is written in the words of "
            "transformers 4; the other files are copied as they are."
        )
    console = message_console()
    for sentence in lost:
        console.print(f"Note: {sentence}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"Written: {out}/", markup=False, highlight=False, soft_wrap=True)
