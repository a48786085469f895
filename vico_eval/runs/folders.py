"""Which files of a folder are a run's: its own, and results of lmms-eval or the status of VLMEvalKit, of one run."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from vico_eval.errors import ReportError, listed
from vico_eval.runs.schema import RECORD_NAME

# Tasks write files of their own whose names also end in `_results.json`; only lmms-eval's start with its date.
_RESULTS_NAME = re.compile(r"(\d{8}_\d{6})_results\.json")

# VLMEvalKit's own is `<work-dir>/<model>/status.json`; served models have a folder a run between.
_STATUS_PLACES = ("status.json", "*/status.json", "*/*/status.json")

_NAMED = 10

ANSWERS = "answers"
FAILURES = "failures"
"""Kinds of journals."""


def journal_file(folder: Path, kind: str, rank: int, shard: str | None = None) -> Path:
    """Where a process of the run in `folder` writes its lines of one kind; `shard` is the name of its shard."""
    return folder / (f"{kind}.rank{rank}.jsonl" if shard is None else f"{kind}.rank{rank}.{shard}.jsonl")


def journal_files(folder: Path, kind: str, shard: str | None = None) -> list[Path]:
    """The files of all processes that have written lines of one kind, by name; of one shard where it is named."""
    return sorted(folder.glob(f"{kind}.rank*.jsonl" if shard is None else f"{kind}.rank*.{shard}.jsonl"))


def results_files(folder: Path) -> list[Path]:
    """lmms-eval's results files in `folder`, at any depth, by date."""
    found = (path for path in folder.rglob("*_results.json") if _RESULTS_NAME.fullmatch(path.name))
    return sorted(found, key=lambda path: (path.name, str(path)))


def status_files(folder: Path) -> list[Path]:
    """VLMEvalKit's status files in `folder`, by path."""
    return sorted(path for place in _STATUS_PLACES for path in folder.glob(place))


def check_folder(folder: Path) -> None:
    """See that `folder` is one.

    Raises:
        ReportError: it is a file, or is not there.
    """
    if folder.is_dir():
        return
    expected = "Expected a run: what lmms-eval got as --output_path, or VLMEvalKit as --work-dir."
    instead = ""
    if folder.is_file():
        names = [path.name for path in folder.parent.iterdir()]
        is_run = RECORD_NAME in names or any(map(_RESULTS_NAME.fullmatch, names)) or "status.json" in names
        instead = f" Give {folder.parent}." if is_run else " Leave it out."
    raise ReportError(f"{folder} is not a folder. {expected}{instead}")


def check_one_run(folder: Path, files: Iterable[Path]) -> None:
    """See that results and status files under `folder` are of one run, and that the run is `folder`'s own.

    Raises:
        ReportError: there are more, or the run has a folder of its own further down; says which to give.
    """
    places = sorted({path.parent for path in files})
    runs = sorted({_run_of(place, folder) for place in places}, key=lambda run: (len(run.parts), run))
    if len(runs) > 1:
        raise ReportError(
            f"{folder} holds {len(runs)} runs, which would be mixed in one row. Give each by its own folder: "
            f"{_named(runs)}."
        )
    if len(places) > 1:
        raise ReportError(
            f"{folder} is one run by its {RECORD_NAME}, but holds results in several folders: {_named(places)}. "
            "Give each run its own --output_path."
        )
    if runs and runs[0] != folder and (runs[0] / RECORD_NAME).exists():
        raise ReportError(f"{folder} is not a run's own folder, but holds one. Give {runs[0]}.")


def runs_below(folder: Path) -> dict[str, Path]:
    """The runs with a record in `folder`, at most two folders down, by their path from there."""
    found = sorted({path.parent for place in ("*", "*/*") for path in folder.glob(f"{place}/{RECORD_NAME}")})
    return {path.relative_to(folder).as_posix(): path for path in found}


def nothing_found(folder: Path) -> ReportError:
    """The error of a folder with neither toolkit's results."""
    if not any(folder.iterdir()):
        return ReportError(f"{folder} is empty. Expected a finished run of lmms-eval or VLMEvalKit.")
    return ReportError(
        f"{folder} has neither a results file of lmms-eval (<date>_results.json) nor a status.json of VLMEvalKit, so "
        "its evaluation failed or is still running, or it is another folder. Give what lmms-eval got as --output_path "
        "or VLMEvalKit as --work-dir, and look for `Error during evaluation` in the log."
    )


def _run_of(place: Path, top: Path) -> Path:
    """The folder of the run that `place` belongs to: the nearest one with a record, else `place` itself."""
    for parent in (place, *place.parents):
        if (parent / RECORD_NAME).exists():
            return parent
        if parent == top:
            break
    return place


def _named(folders: Sequence[Path]) -> str:
    return listed([str(folder) for folder in folders], _NAMED)
