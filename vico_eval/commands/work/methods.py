"""`vico-eval methods`: the registered methods. Listing them imports none; describing one does."""

from __future__ import annotations

from dataclasses import MISSING, asdict
from typing import Any

from vico_eval.commands.output import print_json, print_lines, print_table
from vico_eval.harnesses.lmms_eval.kinds import KINDS
from vico_eval.methods.about import About, about
from vico_eval.methods.arguments import default_text
from vico_eval.methods.registry import describe, method_names, parameters


def print_methods(name: str | None, *, as_json: bool = False) -> None:
    """Print a table of all methods, or the description of one with its arguments.

    Raises:
        ConfigError: no method has that name.
    """
    if name is not None:
        print_method(name, as_json=as_json)
        return
    found = [about(each) for each in method_names()]
    if as_json:
        print_json([_record(one) for one in found])
    else:
        heads = ("Method", "Place", "Models", "Needs", "Source")
        print_table(heads, [(one.name, one.place, one.models, one.needs or "-", one.paper or "-") for one in found])


def print_method(name: str, *, as_json: bool) -> None:
    """Print a method's description and its arguments with their defaults."""
    fields = parameters(name)
    if as_json:
        defaults = [
            {"name": argument, "required": field.default is MISSING, "default": _plain(field.default)}
            for argument, field in fields.items()
        ]
        print_json({**_record(about(name)), "description": describe(name), "arguments": defaults})
        return
    print_lines(describe(name))
    print_lines(f"\nModels in lmms-eval: {', '.join(kind.model_of(name) for kind in KINDS if name in kind.methods)}")
    if fields:
        print_lines("\nArguments (for --model_args of lmms-eval and --model-args of vico-eval):")
        width = max(map(len, fields))
        for argument, field in fields.items():
            print_lines(f"  {argument:<{width}}  default {default_text(field)}")


def _record(one: About) -> dict[str, Any]:
    return {**asdict(one), "paper": one.paper}


def _plain(default: Any) -> Any:
    """Return a default for JSON; null for a required argument."""
    if default is MISSING:
        return None
    return default if isinstance(default, str | int | float | bool | None) else repr(default)
