"""The command line. Commands import what they need when they run, so that `--help` answers at once."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from vico_eval import __version__, cli_options
from vico_eval.cli_agree import agree
from vico_eval.cli_export import export_decoder
from vico_eval.cli_papers import papers_app
from vico_eval.cli_report import report
from vico_eval.cli_run import run
from vico_eval.cli_throughput import throughput_app
from vico_eval.cli_train import train_app
from vico_eval.commands.arguments import parse_names
from vico_eval.errors import UserError
from vico_eval.plain_text import shown

app = typer.Typer(
    name="vico-eval",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


app.add_typer(train_app, name="train")
vlmeval_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Evaluate with VLMEvalKit.")
app.add_typer(vlmeval_app, name="vlmeval")
app.command()(report)
app.command("export-decoder")(export_decoder)
app.command()(run)
app.command()(agree)
app.add_typer(papers_app, name="papers")
app.add_typer(throughput_app, name="throughput")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"vico-eval {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """Measure what a way of saving visual tokens costs in answers and saves in tokens.

    \b
    Examples:
      vico-eval demo --limit 20
      vico-eval methods
    """


@app.command()
def demo(
    table: Annotated[str, typer.Option(help="tiny (ViCO's Table 3) or internvl-x (InternVL-X's parts).")] = "tiny",
    limit: Annotated[int | None, cli_options.limit("First documents of each task. Default: all of them.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the table and the picture. Default: results/measured/<table>, with --rows all <table>-all "
            "beside it, or a folder under runs/ for a partial table."
        ),
    ] = None,
    rows: Annotated[
        str | None,
        typer.Option(
            help="Systems, separated by commas, or all, the field's baselines among them. Default: those of the "
            "paper's table. The first row, which counts as 100%, is always run."
        ),
    ] = None,
    seeds: Annotated[int, cli_options.seeds("Draws of each row that has chance in it, up to its card's three.")] = 1,
    jobs: Annotated[int | None, cli_options.jobs("Processes at once. Default: one a core, at most 4.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Repeat rows that are complete already.")] = False,
    no_shared_pass: cli_options.SeparateRows = False,
    html: Annotated[
        Path | None, typer.Option(help="Also write the table as a page with its samples into this folder.")
    ] = None,
) -> None:
    """Fill Table 3 on the built-in benchmark and print it.

    Or InternVL-X's table. Every row runs through lmms-eval on really trained small models. Needs no network and no GPU.
    Repeating a stopped command keeps the rows that are complete.

    \b
    Examples:
      vico-eval demo --rows all
      vico-eval demo --limit 20 --rows vico,all_compress
    """
    from vico_eval.commands.demo import run_demo

    run_demo(
        table=table,
        limit=limit,
        out=out,
        rows=parse_names(rows, "--rows"),
        num_seeds=seeds,
        jobs=jobs,
        fresh=fresh,
        shared_pass=not no_shared_pass,
        html=html,
    )


@vlmeval_app.command("run")
def vlmeval_run(
    data: Annotated[str, typer.Option(help="VLMEvalKit's names of data sets, separated by commas.")],
    pretrained: Annotated[str, typer.Option(help="Checkpoint: a folder, a hub id or a built-in one.")],
    method: Annotated[str, typer.Option(help="A method, or several joined by +; vico-eval methods lists them.")],
    model_args: Annotated[
        str, typer.Option(help="Further arguments of model and method: name=value, separated by commas.")
    ] = "",
    gen_kwargs: Annotated[
        str,
        typer.Option(
            help="How answers are generated: name=value, separated by commas. Default: greedy; sampled when thinking."
        ),
    ] = "",
    work_dir: Annotated[Path | None, typer.Option(help="Folder of the run. Default: runs/vlmevalkit/<method>.")] = None,
    limit: Annotated[
        int | None, cli_options.limit("First documents of each data set of images. Default: all of them.")
    ] = None,
    judge: Annotated[
        str, typer.Option(help="A model of VLMEvalKit's that reads answers; exact_matching asks none.")
    ] = "exact_matching",
) -> None:
    """Run VLMEvalKit's data sets on one of our methods.

    VLMEvalKit asks and scores, in an environment of its own (pip install 'vico-eval[vlmeval]'). Repeating a stopped
    command goes on where it was.

    \b
    Examples:
      vico-eval vlmeval run --data MMStar,POPE --pretrained OpenGVLab/InternVL3_5-8B-Flash --method vico
      vico-eval vlmeval run --data OCRBench --pretrained vico-tiny-base --method fastv --model-args layer=3 --limit 20
    """
    from vico_eval.commands.vlmeval import run_vlmeval

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


@app.command()
def route(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")],
    checkpoint: Annotated[str, typer.Option(help="With a router: a folder, a hub id or a built-in one.")],
    method: Annotated[
        str, typer.Option(help="One that asks a router: vico, image_vir, vanilla_vir, ... or a combination with it.")
    ] = "vico",
    model_args: Annotated[
        str, typer.Option(help="Further arguments of model and method, as in max_tiles=40,absolute_threshold=0.5.")
    ] = "",
    out: Annotated[Path, typer.Option(help="Folder of the pictures.")] = Path("route"),
) -> None:
    """Draw which tiles of an image the router compresses.

    Each image becomes a picture of its tiles with their scores, the compressed ones shaded, as in ViCO's Figures 3 to
    5; the same numbers are printed. Tiles are cut, scored and decided on as in an evaluation.

    \b
    Examples:
      vico-eval route page.png --checkpoint vico-tiny
      vico-eval route a.jpg b.jpg --checkpoint OpenGVLab/InternVL3_5-8B-Flash --model-args max_tiles=40 --out pictures
    """
    from vico_eval.commands.route import draw_routes

    draw_routes(images, checkpoint=checkpoint, method=method, model_args=model_args, out=out)


@app.command("fit-recipe")
def fit_recipe(
    samples: Annotated[
        Path, typer.Argument(help="JSON lines of InternVL's format, such as LLaVA-1.5's training data: pictures first.")
    ],
    checkpoint: Annotated[str, typer.Option(help="A folder, a hub id or a built-in one.")],
    reductions: Annotated[
        str, typer.Option(help="Shares of the operations on visual tokens to save, separated by commas.")
    ] = "0.6",
    root: Annotated[Path, typer.Option(help="Folder that the paths of pictures are relative to.")] = Path(),
    limit: Annotated[int, cli_options.limit("How many samples, from the file's first on.")] = 64,
    model_args: Annotated[
        str, typer.Option(help="Further arguments of the engine, as in max_tiles=1,batch_size=8.")
    ] = "",
    out: Annotated[Path, typer.Option(help="File to write.")] = Path("recipes.json"),
) -> None:
    """Search FitPrune's recipes for a model.

    A recipe says how many visual tokens leave in which layer; there is one for each reduction, as the released script
    searches it, and method=fitprune,recipe=FILE.json takes them. Needs eight prefills of all samples for the first
    reduction, fewer for each further one.

    \b
    Examples:
      vico-eval fit-recipe samples.jsonl --checkpoint vico-tiny-base
      vico-eval fit-recipe llava.jsonl --root images --checkpoint OpenGVLab/InternVL3_5-8B --reductions 0.4,0.6
    """
    from vico_eval.commands.fit_recipe import fit_recipe as search

    search(
        samples,
        checkpoint=checkpoint,
        reductions=reductions,
        root=root,
        limit=limit,
        model_args=model_args,
        out=out,
    )


@app.command()
def methods(
    name: Annotated[str | None, typer.Argument(help="A method; without it, all are listed.")] = None,
) -> None:
    """List the methods, or describe one.

    \b
    Examples:
      vico-eval methods
      vico-eval methods random
    """
    from vico_eval.commands.methods import print_methods

    print_methods(name)


@app.command()
def tasks() -> None:
    """Print the folder of our lmms-eval tasks.

    They are those that lmms-eval itself lacks; it takes the folder as --include_path.

    \b
    Examples:
      vico-eval tasks
      lmms-eval --tasks list --include_path "$(vico-eval tasks)"
    """
    from vico_eval.paths import tasks_dir

    # The bytes of the path, which another command gets: a terminal's encoding may lack some of its characters.
    typer.echo(os.fsencode(tasks_dir()))


OF_THE_MACHINE = {
    errno.ENOSPC: "Free some space, or write to another disk.",
    errno.EDQUOT: "Free some space, or write to another disk.",
    errno.EROFS: "Write to another folder: give --out, or start the command elsewhere.",
    errno.EACCES: "Give another file or folder, or change its permissions.",
    errno.EPERM: "Give another file or folder, or change its permissions.",
    errno.EMFILE: "Allow more open files (ulimit -n).",
    errno.ENFILE: "Close other programs.",
    errno.ENOMEM: "Close other programs, or ask for less at once.",
    errno.EIO: "Look at the disk.",
    errno.ENAMETOOLONG: "Give a shorter name.",
}
"""Faults of the machine that can come at any write or read, and what to do; what was written until then stays."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: exit status 0 done, 1 failed, 2 wrong usage.

    A user's error is shown without a traceback, and so is a fault of the machine; any other keeps its own.
    """
    for stream in (sys.stdout, sys.stderr):
        # What a terminal's letters lack is escaped: a table is not lost for a dash in it.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    # A stopped command ends the processes that it started, also when it is stopped from outside.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _: sys.exit(128 + received))
    try:
        app(args=arguments, prog_name="vico-eval")
    except UserError as error:
        _fail(str(error))
    except MemoryError:
        _fail(f"Out of memory. {OF_THE_MACHINE[errno.ENOMEM]}")
    except OSError as error:
        if error.errno not in OF_THE_MACHINE:
            raise
        where = f": {error.filename}" if error.filename is not None else ""
        _fail(f"{error.strerror}{where}. {OF_THE_MACHINE[error.errno]}")


def _fail(message: str) -> NoReturn:
    typer.secho("Error: ", err=True, fg="red", bold=True, nl=False)
    typer.echo(shown(message, sys.stderr.encoding or "utf-8"), err=True)
    sys.exit(1)
