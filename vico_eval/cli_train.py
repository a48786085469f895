"""`vico-eval train`: ViCO's two stages for checkpoints of any size."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vico_eval.cli_options import AccelerateConfig, TrainingConfig, TrainingProcesses

train_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Train ViCO or the built-in small models, or export a checkpoint."
)


@train_app.command("consistency")
def consistency(
    config: TrainingConfig, processes: TrainingProcesses = None, accelerate_config: AccelerateConfig = None
) -> None:
    """Train ViCO's stage 1: the same answers from fewer tokens.

    The finished model is OUT/model, with held_out.json beside it. Repeat a stopped or killed command and it goes on.
    accelerate launch ... -m vico_eval.training consistency CONFIG does the same.

    \b
    Examples:
      vico-eval train consistency models/training/consistency-1b.yaml
      vico-eval train consistency models/training/consistency-8b.yaml --accelerate-config models/training/fsdp2.yaml
    """
    from vico_eval.commands.train_vico import train

    train("consistency", config, processes, accelerate_config)


@train_app.command("router")
def router(
    config: TrainingConfig, processes: TrainingProcesses = None, accelerate_config: AccelerateConfig = None
) -> None:
    """Train ViCO's stage 2: the router of tiles.

    CONFIG names the base model and what stage 1 made of it. The finished model is OUT/model; repeat a stopped command
    and it goes on. accelerate launch ... -m vico_eval.training router CONFIG does the same.

    \b
    Examples:
      vico-eval train router models/training/router-1b.yaml
      vico-eval train router models/training/router-8b.yaml --processes 8
    """
    from vico_eval.commands.train_vico import train

    train("router", config, processes, accelerate_config)


@train_app.command("export")
def train_export(
    checkpoint: Annotated[str, typer.Argument(help="A folder, a hub id or a built-in one, in any layout.")],
    out: Annotated[Path, typer.Argument(help="A new or empty folder.")],
    auto_map: Annotated[
        bool, typer.Option("--auto-map", help="Point config.json to the authors' code, whose files you copy into OUT.")
    ] = False,
) -> None:
    """Write a checkpoint in InternVL's released layout.

    With a low connector and a router the layout is that of InternVL3.5-Flash. Whatever the layout has no place for is
    left out and named. The tokenizer files are those of CHECKPOINT, byte for byte, so transformers 4.57 reads them too.
    LMDeploy and the authors' code also need the authors' own files, which are not written: export with --auto-map, and
    copy into OUT the .py files of a release of the same kind (with a router: a Flash one, such as
    OpenGVLab/InternVL3_5-8B-Flash). Then lmdeploy serve api_server OUT --backend pytorch --trust-remote-code.

    \b
    Examples:
      vico-eval train export runs/vico-8b released/vico-8b --auto-map
      vico-eval train export vico-tiny released/vico-tiny
    """
    from vico_eval.commands.train import export_checkpoint

    export_checkpoint(checkpoint, out, auto_map=auto_map)


@train_app.command("tiny")
def train_tiny(
    recipe: Annotated[Path, typer.Argument(help="YAML file with the sizes, the stages and their settings.")],
    out: Annotated[Path, typer.Option(help="Folder for weights, log and the finished checkpoints.")] = Path(
        "runs/train-tiny"
    ),
    stage: Annotated[
        list[str] | None,
        typer.Option(help="dense, base, corpus or calibration; may be repeated. Default: all but calibration."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue stages from their last saved step.")] = False,
) -> None:
    """Train the built-in small models from a recipe.

    Makes the base model and, in the stage corpus, what ViCO's own stages train on. Then come train consistency and
    train router with the configurations beside the recipe, and the stage calibration, which chooses thresholds and
    leaves the finished model. Each starts from what the one before left in the output folder.

    \b
    Examples:
      vico-eval train tiny models/vico-tiny/recipe.yaml
      vico-eval train tiny models/vico-tiny/recipe.yaml --stage calibration
    """
    from vico_eval.commands.train import train_tiny as train

    train(recipe, out, stage or (), resume=resume)


@train_app.command("internvl-x")
def train_internvl_x(
    recipe: Annotated[Path, typer.Argument(help="YAML file with the base checkpoint, the stages and their settings.")],
    out: Annotated[Path, typer.Option(help="Folder for weights, logs and the finished checkpoints.")] = Path(
        "runs/train-internvl-x"
    ),
    variant: Annotated[
        list[str] | None, typer.Option(help="base, pvtc, lvtc or full; may be repeated. Default: all.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep what is finished, continue from the last saved step.")
    ] = False,
) -> None:
    """Train InternVL-X's parts on the built-in base model.

    Each variant trains its new projectors alone, then everything. The variant base, with a new connector of InternVL's
    kind, is what the others are compared with.

    \b
    Examples:
      vico-eval train internvl-x models/internvl-x-tiny/recipe.yaml
      vico-eval train internvl-x models/internvl-x-tiny/recipe.yaml --variant pvtc --resume
    """
    from vico_eval.commands.train import train_internvl_x as train

    train(recipe, out, variant or (), resume=resume)
