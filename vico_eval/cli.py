"""The command line. Commands import what they need when they run, so that `--help` answers at once."""

from __future__ import annotations

import errno
import io
import logging
import os
import re
import shlex
import signal
import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from vico_eval import __version__
from vico_eval.commands.agree import agree
from vico_eval.commands.checkpoints import checkpoints
from vico_eval.commands.demo import demo
from vico_eval.commands.doctor import doctor
from vico_eval.commands.export_decoder import export_decoder
from vico_eval.commands.fit_recipe import fit_recipe
from vico_eval.commands.help import EVALUATE, INSPECT, MEASURE, REPORT, TRAIN, GroupedCommands
from vico_eval.commands.methods import methods
from vico_eval.commands.papers import papers_app
from vico_eval.commands.report import report
from vico_eval.commands.route import route
from vico_eval.commands.run import run
from vico_eval.commands.tasks import tasks
from vico_eval.commands.throughput import throughput_app
from vico_eval.commands.train import train_app
from vico_eval.commands.vlmeval import vlmeval_app
from vico_eval.errors import UnknownName, UserError
from vico_eval.plain_text import shown

app = typer.Typer(
    name="vico-eval",
    cls=GroupedCommands,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command(rich_help_panel=EVALUATE)(demo)
app.command(rich_help_panel=EVALUATE)(run)
app.add_typer(vlmeval_app, name="vlmeval", rich_help_panel=EVALUATE)
app.command(rich_help_panel=REPORT)(report)
app.command(rich_help_panel=REPORT)(agree)
app.add_typer(papers_app, name="papers", rich_help_panel=REPORT)
app.add_typer(train_app, name="train", rich_help_panel=TRAIN)
app.command(rich_help_panel=TRAIN)(fit_recipe)
app.command(rich_help_panel=TRAIN)(export_decoder)
app.add_typer(throughput_app, name="throughput", rich_help_panel=MEASURE)
app.command(rich_help_panel=INSPECT)(methods)
app.command(rich_help_panel=INSPECT)(checkpoints)
app.command(rich_help_panel=INSPECT)(tasks)
app.command(rich_help_panel=INSPECT)(route)
app.command(rich_help_panel=INSPECT)(doctor)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"vico-eval {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Also show the messages and progress bars of libraries.")
    ] = False,
) -> None:
    """Measure how much accuracy visual-token compression costs, and how much compute it saves.

    \b
    Examples:
      vico-eval demo --limit 20
      vico-eval methods
    """
    if not verbose:
        _keep_libraries_quiet()


def _keep_libraries_quiet() -> None:
    # Torch tells torchao on every start what it should do otherwise; no user of this package can.
    logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)
    if sys.stderr is None or not sys.stderr.isatty():
        # The bars of transformers and huggingface_hub; in a log, each step of a bar would be text.
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


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
        given = sys.argv[1:] if arguments is None else arguments
        _fail(str(error) + _with_the_nearest_name(given, error))
    except MemoryError:
        _fail(f"Out of memory. {OF_THE_MACHINE[errno.ENOMEM]}")
    except OSError as error:
        if error.errno not in OF_THE_MACHINE:
            raise
        where = f": {error.filename}" if error.filename is not None else ""
        _fail(f"{error.strerror}{where}. {OF_THE_MACHINE[error.errno]}")


def _with_the_nearest_name(arguments: Sequence[str], error: UserError) -> str:
    """The command as it would have worked, on a line of its own; nothing where no name is near or it isn't clear."""
    if not isinstance(error, UnknownName) or error.near is None:
        return ""
    wrong = re.compile(rf"(?<![\w-]){re.escape(error.name)}(?![\w-])")
    mended = [wrong.sub(error.near, argument) for argument in arguments]
    changes = [old for old, new in zip(arguments, mended, strict=True) if old != new]
    return f"\nTry: {shlex.join(['vico-eval', *mended])}" if len(changes) == 1 else ""


def _fail(message: str) -> NoReturn:
    typer.secho("Error: ", err=True, fg="red", bold=True, nl=False)
    typer.echo(shown(message, sys.stderr.encoding or "utf-8"), err=True)
    sys.exit(1)
