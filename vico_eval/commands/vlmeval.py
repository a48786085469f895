"""`vico-eval vlmeval`: evaluation with VLMEvalKit in place of lmms-eval."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vico_eval.commands import options
from vico_eval.commands.arguments import parse_names

vlmeval_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Evaluate with VLMEvalKit.")


@vlmeval_app.command("run")
def run(
    data: Annotated[str, typer.Option(help="Names of data sets in VLMEvalKit, separated by commas.")],
    pretrained: Annotated[str, options.checkpoint()],
    method: Annotated[str, options.methods("Method, or several joined by +; `vico-eval methods` lists them.")],
    model_args: options.ModelArgs = "",
    gen_kwargs: Annotated[
        str,
        typer.Option(
            help="Generation settings: name=value, separated by commas. Default: greedy, or sampling when thinking."
        ),
    ] = "",
    work_dir: Annotated[Path | None, typer.Option(help="Folder of the run. Default: runs/vlmevalkit/<method>.")] = None,
    limit: Annotated[
        int | None, options.limit("Number of documents of each image data set, from its first on. Default: all.")
    ] = None,
    judge: Annotated[
        str, typer.Option(help="Model of VLMEvalKit that judges the answers; exact_matching uses none.")
    ] = "exact_matching",
) -> None:
    """Evaluate a method on data sets of VLMEvalKit.

    VLMEvalKit asks the questions and scores the answers. It needs an environment of its own, with
    `pip install 'vico-eval[vlmeval]'`. Repeating a stopped command resumes it.

    \b
    Examples:
      vico-eval vlmeval run --data MMStar,POPE --pretrained OpenGVLab/InternVL3_5-8B-Flash --method vico
      vico-eval vlmeval run --data OCRBench --pretrained vico-tiny-base --method fastv --model-args layer=3 --limit 20
    """
    from vico_eval.commands.work.vlmeval import run_vlmeval

    run_vlmeval(
        data=parse_names(data, "--data"),
        pretrained=pretrained,
        method=method,
        model_args=model_args,
        gen_kwargs=gen_kwargs,
        work_dir=work_dir or Path("runs") / "vlmevalkit" / method,
        limit=limit,
        judge=judge,
    )
