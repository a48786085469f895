"""What makes answers stale: everything that decides them, compared with what it was when they were given.

| what | how it is known | where it is compared |
|---|---|---|
| this package | its version | record, request |
| libraries, and tasks that come with lmms-eval | their versions | record, request |
| checkpoint, donor | a digest of a local folder's files; once loaded, of every tensor | request; record |
| arguments | as typed, less the tasks; once loaded, with their defaults | request; record |
| tasks of our own | a digest of their files | request, benchmark by benchmark |
| data | every document's words and pictures, when its answer is taken over | answers |

The record (`record.json`) is compared when a model is loaded to go on in a run's folder, the request (`request.json`)
before that, when `vico-eval run` is repeated: a finished run is not loaded again.

The git commit is recorded and not compared. It changes with every comment, and nobody wants to answer a benchmark anew
for one. A change of this package that changes answers changes its version. Of data sets the record names the revision,
and a run that goes on says which have changed.
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
"""Those that decide an answer or its score, as far as they are installed: an environment has one of the harnesses."""

CONDITIONS = ("checkpoint", "donor", "method", "method_args", "settings", "dtype", "attention", "harness")
"""What of a record decides an answer, besides `versions`."""

_DECIDES_NOTHING = frozenset({"python"})
"""Of `versions`."""

PACKAGE = Path(vico_eval.__file__).parent

GIT_S = 10
"""Time that git has; it reads the whole checkout to see whether it is dirty."""


def versions() -> dict[str, str | None]:
    """Those of Python, this package and the libraries that are installed here."""
    found: dict[str, str | None] = {"python": platform.python_version(), "vico_eval": vico_eval.__version__}
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            found[name.replace("-", "_").lower()] = version(name)
    return found


def commit(package: Path = PACKAGE) -> str | None:
    """The git commit of a package's code, with `-dirty` where files differ; None where it is in no checkout."""
    git = ("git", "--no-optional-locks", "-C", str(package))
    try:
        # A wheel may be installed in an environment inside somebody else's repository.
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
    """Names of the conditions in which two runs differ; the answers of one are not the other's."""
    different = [name for name in CONDITIONS if getattr(earlier, name) != getattr(now, name)]
    return (*different, *(("versions",) if other_versions(earlier.versions, now.versions) else ()))


def other_versions(earlier: Mapping[str, str | None], now: Mapping[str, str | None]) -> tuple[str, ...]:
    """Names of the packages of which another version decides answers now."""
    names = [name for name in {**earlier, **now} if name not in _DECIDES_NOTHING]
    return tuple(name for name in names if earlier.get(name) != now.get(name))


def why_stale(earlier: RunRequest, now: RunRequest) -> str | None:
    """Why a folder's answers to one request are none to another, in words; None where they are.

    Args:
        earlier: of the present version, or made so by `completed`.
        now: what is to be done.
    """
    if earlier.arguments != now.arguments:
        return "it is of other arguments"
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
    """A request of version 1, which has a digest of code in place of versions and checkpoints, as one of the present.

    Args:
        earlier: the request.
        record: beside it; has the versions.
        now: the request that it will be compared with. Its checkpoints are those of `earlier` if none of their files
            has been written since the model was loaded.
        written_s: when the newest of these files was written, in seconds since 1970.
    """
    is_unchanged = record.started is not None and written_s <= record.started.timestamp()
    checkpoints = now.checkpoints if is_unchanged else {}
    return earlier.model_copy(update={"version": 2, "versions": record.versions, "checkpoints": checkpoints})
