"""`vico-eval train`: ViCO's two stages for checkpoints of any size."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vico_eval.commands import completion, options

train_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Train ViCO or the built-in models, or export a checkpoint."
)


@train_app.command("consistency")
def consistency(
    config: options.TrainingConfig,
    processes: options.TrainingProcesses = None,
    accelerate_config: options.AccelerateConfig = None,
) -> None:
    """Train ViCO's stage 1: consistency on compressed tiles.

    The finished model is OUT/model, next to held_out.json. Repeating a stopped or killed command resumes it.
    accelerate launch ... -m vico_eval.training consistency CONFIG does the same.

    \b
    Examples:
      vico-eval train consistency models/training/consistency-1b.yaml
      vico-eval train consistency models/training/consistency-8b.yaml --accelerate-config models/training/fsdp2.yaml
    """
    from vico_eval.commands.work.train_vico import train

    train("consistency", config, processes, accelerate_config)


@train_app.command("router")
def router(
    config: options.TrainingConfig,
    processes: options.TrainingProcesses = None,
    accelerate_config: options.AccelerateConfig = None,
) -> None:
    """Train ViCO's stage 2: the router that decides tile by tile.

    CONFIG names the base model and the result of stage 1. The finished model is OUT/model. Repeating a stopped command
    resumes it. accelerate launch ... -m vico_eval.training router CONFIG does the same.

    \b
    Examples:
      vico-eval train router models/training/router-1b.yaml
      vico-eval train router models/training/router-8b.yaml --processes 8
    """
    from vico_eval.commands.work.train_vico import train

    train("router", config, processes, accelerate_config)


@train_app.command("export")
def train_export(
    checkpoint: Annotated[
        str,
        typer.Argument(
            help=f"Checkpoint in any layout: {options.A_CHECKPOINT}.", autocompletion=completion.checkpoints
        ),
    ],
    out: Annotated[Path, typer.Argument(help="A new or empty folder.")],
    auto_map: Annotated[
        bool, typer.Option("--auto-map", help="Refer to the authors' code in config.json; you copy its files into OUT.")
    ] = False,
) -> None:
    """Export a checkpoint in InternVL's released layout.

    A model with a low connector and a router is written in the layout of InternVL3.5-Flash. Parts that the layout has
    no place for are left out and named. The tokenizer files are copied byte for byte from CHECKPOINT, so transformers
    4.57 can read them too. LMDeploy and the authors' code also need the authors' own files, which are not written:
    export with --auto-map, copy into OUT the .py files of a release of the same kind (with a router, a Flash release
    such as OpenGVLab/InternVL3_5-8B-Flash), and run lmdeploy serve api_server OUT --backend pytorch
    --trust-remote-code.

    \b
    Examples:
      vico-eval train export runs/vico-8b released/vico-8b --auto-map
      vico-eval train export vico-tiny released/vico-tiny
    """
    from vico_eval.commands.work.train import export_checkpoint

    export_checkpoint(checkpoint, out, auto_map=auto_map)


@train_app.command("tiny")
def train_tiny(
    recipe: Annotated[Path, typer.Argument(help="YAML file with the model sizes, the stages and their settings.")],
    out: Annotated[Path, typer.Option(help="Folder for weights, the log and the finished checkpoints.")] = Path(
        "runs/train-tiny"
    ),
    stage: Annotated[
        list[str] | None,
        typer.Option(
            help="Stage to run: dense, base, corpus or calibration. Can be repeated. Default: all but calibration."
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume each stage from its last saved step.")] = False,
) -> None:
    """Train the built-in small models from a recipe.

    Trains the base model and, in the stage corpus, writes the data that ViCO's own stages train on. Run train
    consistency and train router next, with the configurations beside the recipe, and then the stage calibration, which
    chooses the thresholds and writes the finished model. Each step starts from the results of the one before in --out.

    \b
    Examples:
      vico-eval train tiny models/vico-tiny/recipe.yaml
      vico-eval train tiny models/vico-tiny/recipe.yaml --stage calibration
    """
    from vico_eval.commands.work.train import train_tiny as train

    train(recipe, out, stage or (), resume=resume)


@train_app.command("internvl-x")
def train_internvl_x(
    recipe: Annotated[Path, typer.Argument(help="YAML file with the base checkpoint, the stages and their settings.")],
    out: Annotated[Path, typer.Option(help="Folder for weights, logs and the finished checkpoints.")] = Path(
        "runs/train-internvl-x"
    ),
    variant: Annotated[
        list[str] | None,
        typer.Option(help="Variant to train: base, pvtc, lvtc or full. Can be repeated. Default: all."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep finished variants and resume from the last saved step.")
    ] = False,
) -> None:
    """Train InternVL-X's parts on the built-in base model.

    Each variant first trains only its new projectors, then the whole model. The variant base, with a new connector of
    InternVL's kind, is the baseline for the others.

    \b
    Examples:
      vico-eval train internvl-x models/internvl-x-tiny/recipe.yaml
      vico-eval train internvl-x models/internvl-x-tiny/recipe.yaml --variant pvtc --resume
    """
    from vico_eval.commands.work.train import train_internvl_x as train

    train(recipe, out, variant or (), resume=resume)
