"""`vico-eval methods`: what is registered. The list imports no method; only the look at one does."""

from __future__ import annotations

from vico_eval.commands.output import print_lines
from vico_eval.harnesses.lmms_eval.kinds import KINDS
from vico_eval.methods.arguments import default_text
from vico_eval.methods.registry import describe, method_names, parameters


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
            print_lines(f"{each:<{width}}  {describe(each).partition(chr(10))[0]}")
        return
    print_lines(describe(name))
    print_lines(f"\nModels in lmms-eval: {', '.join(kind.model_of(name) for kind in KINDS if name in kind.methods)}")
    arguments = parameters(name)
    if arguments:
        print_lines("\nArguments (in --model_args):")
        width = max(map(len, arguments))
        for argument, field in arguments.items():
            print_lines(f"  {argument:<{width}}  default {default_text(field)}")
