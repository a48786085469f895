"""`vico-eval doctor`: what this machine and this environment can run."""

from __future__ import annotations

from typing import Annotated

import typer

from vico_eval.commands import options


def doctor(
    offline: Annotated[bool, typer.Option("--offline", help="Skip the connection test.")] = False,
    as_json: options.Json = False,
) -> None:
    """Show versions, devices, memory, toolkits and extras.

    For each missing extra, says what it adds and how to install it. Also tests whether the Hugging Face hub answers
    within three seconds; without it, the built-in models and every checkpoint that is on this machine still run.
    Nothing is downloaded or written.

    \b
    Examples:
      vico-eval doctor
      vico-eval doctor --offline --json
    """
    from vico_eval.commands.work.doctor import print_diagnosis

    print_diagnosis(ask_hub=not offline, as_json=as_json)
