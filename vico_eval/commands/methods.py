"""`vico-eval methods`: what is registered. The list imports no method; only the look at one does."""

from __future__ import annotations

import typer

from vico_eval.methods.registry import default_text, describe, method_names, parameters


def print_methods(name: str | None) -> None:
    """Print every method's name and first sentence, or all about one.

    Raises:
        ConfigError: no method of that name.
    """
    # Plain lines, not a rich table: those are wrapped at 80 columns where the output is piped.
    if name is None:
        names = method_names()
        width = max(map(len, names))
        for each in names:
            typer.echo(f"{each:<{width}}  {describe(each).partition(chr(10))[0]}")
        return
    typer.echo(describe(name))
    arguments = parameters(name)
    if arguments:
        typer.echo("\nArguments (in --model_args):")
        width = max(map(len, arguments))
        for argument, field in arguments.items():
            typer.echo(f"  {argument:<{width}}  default {default_text(field)}")
