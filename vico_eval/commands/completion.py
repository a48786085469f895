"""What the shell offers for an option's value. Names come from files and tables that need neither torch nor pandas.

Where an option takes several names, separated by commas or joined by `+`, the last one is completed.
"""

from __future__ import annotations

from collections.abc import Iterable


def methods(incomplete: str) -> list[str]:
    """Names of methods."""
    from vico_eval.methods.registry import method_names

    return _last(incomplete, method_names())


def suites(incomplete: str) -> list[str]:
    """Names of suites."""
    from vico_eval.suites import suite_names

    return _last(incomplete, suite_names())


def rows(incomplete: str) -> list[str]:
    """Names of systems."""
    from vico_eval.paths import models_dir

    return _last(incomplete, sorted(path.stem for path in (models_dir() / "systems").glob("*.yaml")))


def checkpoints(incomplete: str) -> list[str]:
    """Names of the built-in checkpoints, and hub ids of the released ones."""
    from vico_eval.commands.checkpoints import known_checkpoints

    return _last(incomplete, [known.checkpoint for known in known_checkpoints()])


def papers(incomplete: str) -> list[str]:
    """Names of papers whose tables ship with the package."""
    from vico_eval.paths import results_dir

    folders = (results_dir() / "published").glob("*/tables.yaml")
    return _last(incomplete, sorted(path.parent.name.replace("_", "-") for path in folders))


def _last(incomplete: str, names: Iterable[str]) -> list[str]:
    """What the whole value can become: everything up to the last separator stays as typed."""
    place = max(incomplete.rfind(","), incomplete.rfind("+")) + 1
    typed, last = incomplete[:place], incomplete[place:]
    return [typed + name for name in names if name.startswith(last)]
