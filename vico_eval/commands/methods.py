"""`vico-eval methods`: what is registered, read from the registry, without importing any method."""

from __future__ import annotations

from rich.table import Table

from vico_eval.commands.cards import unknown
from vico_eval.commands.output import results_console
from vico_eval.methods.registry import describe, method_names


def print_methods(name: str | None) -> None:
    """Print every method with its description, or one.

    Raises:
        ConfigError: no method of that name.
    """
    names = list(method_names())
    if name is not None and name not in names:
        raise unknown("method", name, names)
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for each in names if name is None else [name]:
        table.add_row(each, describe(each))
    results_console().print(table, highlight=False)
