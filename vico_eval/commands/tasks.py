"""`vico-eval tasks`: our tasks for lmms-eval, and the suites and benchmarks that are made of tasks."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

from vico_eval import paths
from vico_eval.commands import options


def tasks(
    suites: Annotated[
        bool, typer.Option("--suites", help="List the suites that `vico-eval run` takes, with their benchmarks.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Print the folder of our lmms-eval tasks, or list suites.

    The folder has the tasks that lmms-eval itself lacks; give it to lmms-eval as --include_path. With --json the output
    has the folder, the suites and every benchmark with its tasks.

    \b
    Examples:
      vico-eval tasks --suites
      lmms-eval --tasks list --include_path "$(vico-eval tasks)"
    """
    if as_json:
        from vico_eval.commands.output import print_json

        print_json(_catalogue())
    elif suites:
        _print_suites()
    else:
        # The bytes of the path, which another command gets: a terminal's encoding may lack some of its characters.
        typer.echo(os.fsencode(paths.tasks_dir()))


def _print_suites() -> None:
    from vico_eval.commands.output import print_table
    from vico_eval.suites import load_benchmarks, load_suite, suite_names

    titles = {name: benchmark.title for name, benchmark in load_benchmarks().items()}
    rows = []
    for suite in map(load_suite, suite_names()):
        benchmarks = ", ".join(titles[name] for name in suite.benchmarks)
        rows.append((suite.name, suite.table, suite.title, benchmarks))
    print_table(("Suite", "Table", "Title", "Benchmarks"), rows)


def _catalogue() -> dict[str, Any]:
    from vico_eval.suites import load_benchmarks, load_suite, suite_names

    return {
        "folder": str(paths.tasks_dir()),
        "suites": [load_suite(name).model_dump(mode="json") for name in suite_names()],
        "benchmarks": {
            name: benchmark.model_dump(mode="json", exclude_defaults=True)
            for name, benchmark in load_benchmarks().items()
        },
    }
