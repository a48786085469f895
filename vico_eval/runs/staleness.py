"""Detect stale answers by comparing everything that affects them with its state when they were given.

| what | identified by | compared in |
|---|---|---|
| this package | its version | record, request |
| libraries, and tasks packaged with lmms-eval | their versions | record, request |
| checkpoint, donor | digest of a local folder's files; once loaded, of every tensor | request; record |
| arguments | as typed, without the tasks; once loaded, with defaults | request; record |
| our own tasks | digest of their files | request, per benchmark |
| data | every document's text and images, when its answer is reused | answers |

The record (`record.json`) is compared when a model is loaded to continue a run, the request (`request.json`) earlier,
when `vico-eval run` is repeated, so that a finished run does not load its model again.

The git commit is recorded but not compared, because it changes with every comment. A change to this package that
changes answers also changes its version. The record has the revisions of data sets, and a continued run reports those
that have changed.
"""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import vico_eval
from vico_eval.runs.schema import RunRecord, RunRequest

LIBRARIES = ("torch", "transformers", "lmms-eval", "ms-vlmeval", "accelerate", "Pillow", "av", "datasets")
"""Libraries that affect an answer or its score. Those that are installed are recorded; an environment has one
harness."""

CONDITIONS = ("checkpoint", "donor", "method", "method_args", "settings", "dtype", "attention", "harness")
"""Fields of a record that affect answers, in addition to `versions`."""

_DECIDES_NOTHING = frozenset({"python"})
"""Entries in `versions` that don't affect answers."""

PACKAGE = Path(vico_eval.__file__).parent

GIT_S = 10
"""Timeout for git in seconds; it reads the whole checkout to see if it is dirty."""


def versions() -> dict[str, str | None]:
    """Versions of Python, this package and the installed libraries."""
    found: dict[str, str | None] = {"python": platform.python_version(), "vico_eval": vico_eval.__version__}
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            found[name.replace("-", "_").lower()] = version(name)
    return found


def commit(package: Path = PACKAGE) -> str | None:
    """The git commit of a package's code, with `-dirty` if files differ; None if it is not in a git checkout."""
    git = ("git", "--no-optional-locks", "-C", str(package))
    try:
        # A wheel's environment may be inside another repository.
        subprocess.run(
            (*git, "ls-files", "--error-unmatch", "__init__.py"), check=True, capture_output=True, timeout=GIT_S
        )
        described = subprocess.run(
            (*git, "describe", "--always", "--dirty", "--exclude=*"),
            check=True,
            capture_output=True,
            text=True,
            timeout=GIT_S,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip()


def other_conditions(earlier: RunRecord, now: RunRecord) -> tuple[str, ...]:
    """Names of the conditions that differ between two runs; if there are any, answers can't be reused."""
    different = [name for name in CONDITIONS if getattr(earlier, name) != getattr(now, name)]
    return (*different, *(("versions",) if other_versions(earlier.versions, now.versions) else ()))


def other_versions(earlier: Mapping[str, str | None], now: Mapping[str, str | None]) -> tuple[str, ...]:
    """Names of the packages whose version has changed, if they affect answers."""
    names = [name for name in {**earlier, **now} if name not in _DECIDES_NOTHING]
    return tuple(name for name in names if earlier.get(name) != now.get(name))


def why_stale(earlier: RunRequest, now: RunRequest) -> str | None:
    """The reason that answers to an earlier request can't be reused now, as text; None if they can.

    Args:
        earlier: a request of the current version, or one converted by `completed`.
        now: the new request.
    """
    if earlier.arguments != now.arguments:
        return "its arguments differ"
    before, found = earlier.versions or {}, now.versions or {}
    if names := other_versions(before, found):
        changes = (
            f"{name} was {before.get(name) or 'missing'} and is {found.get(name) or 'missing'}" for name in names
        )
        return f"versions have changed: {', '.join(changes)}"
    weights, found_weights = earlier.checkpoints or {}, now.checkpoints or {}
    if changed := [name for name, digest in found_weights.items() if weights.get(name) != digest]:
        return f"checkpoints have changed: {', '.join(changed)}"
    if changed := [name for name, content in now.cells.items() if earlier.cells.get(name, content) != content]:
        return f"the tasks of {', '.join(changed)} have changed"
    return None


def completed(earlier: RunRequest, record: RunRecord, now: RunRequest, written_s: float) -> RunRequest:
    """Convert a request of version 1, which has a digest of code in place of versions and checkpoints.

    Args:
        earlier: the request of version 1.
        record: the record in the same folder, which has the versions.
        now: the request to compare with. Its checkpoints are also those of `earlier` if none of their files has changed
            since the model was loaded.
        written_s: modification time of the newest of these files, in seconds since 1970.
    """
    is_unchanged = record.started is not None and written_s <= record.started.timestamp()
    checkpoints = now.checkpoints if is_unchanged else {}
    return earlier.model_copy(update={"version": 2, "versions": record.versions, "checkpoints": checkpoints})
