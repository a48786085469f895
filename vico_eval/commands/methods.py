"""`vico-eval methods`: the methods that can be asked for by name."""

from __future__ import annotations

from typing import Annotated

import typer

from vico_eval.commands import completion, options


def methods(
    name: Annotated[
        str | None,
        typer.Argument(help="Method to describe. Default: list all of them.", autocompletion=completion.methods),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """List the compression methods, or describe one.

    The list shows where each method acts, which models run it, what it needs besides the model, and the paper that it
    follows. A description adds what differs from the paper, and the arguments with their defaults.

    \b
    Examples:
      vico-eval methods
      vico-eval methods fastv
    """
    from vico_eval.commands.work.methods import print_methods

    print_methods(name, as_json=as_json)
