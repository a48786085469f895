"""Locate a run's files in its folder: its own, lmms-eval's results or VLMEvalKit's status. A folder holds one run."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from vico_eval.errors import ReportError, listed
from vico_eval.runs.schema import RECORD_NAME

# Tasks also write files whose names end in `_results.json`; only lmms-eval's start with a date.
_RESULTS_NAME = re.compile(r"(\d{8}_\d{6})_results\.json")

# VLMEvalKit writes `<work-dir>/<model>/status.json`, with one more folder per run for served models.
_STATUS_PLACES = ("status.json", "*/status.json", "*/*/status.json")

_NAMED = 10

ANSWERS = "answers"
FAILURES = "failures"
"""Kinds of journals."""


def journal_file(folder: Path, kind: str, rank: int, shard: str | None = None) -> Path:
    """The journal that one process of the run in `folder` writes; `shard` is the name of its shard."""
    return folder / (f"{kind}.rank{rank}.jsonl" if shard is None else f"{kind}.rank{rank}.{shard}.jsonl")


def journal_files(folder: Path, kind: str, shard: str | None = None) -> list[Path]:
    """The journals of one kind from all processes, sorted by name; only those of one shard if it is named."""
    return sorted(folder.glob(f"{kind}.rank*.jsonl" if shard is None else f"{kind}.rank*.{shard}.jsonl"))


def results_files(folder: Path) -> list[Path]:
    """lmms-eval's results files in `folder`, at any depth, sorted by date."""
    found = (path for path in folder.rglob("*_results.json") if _RESULTS_NAME.fullmatch(path.name))
    return sorted(found, key=lambda path: (path.name, str(path)))


def status_files(folder: Path) -> list[Path]:
    """VLMEvalKit's status files in `folder`, sorted by path."""
    return sorted(path for place in _STATUS_PLACES for path in folder.glob(place))


def check_folder(folder: Path) -> None:
    """Check that `folder` is a folder.

    Raises:
        ReportError: the path is a file or does not exist.
    """
    if folder.is_dir():
        return
    expected = "Expected a run's folder: lmms-eval's --output_path or VLMEvalKit's --work-dir."
    instead = ""
    if folder.is_file():
        names = [path.name for path in folder.parent.iterdir()]
        is_run = RECORD_NAME in names or any(map(_RESULTS_NAME.fullmatch, names)) or "status.json" in names
        instead = f" Give {folder.parent}." if is_run else " Leave it out."
    raise ReportError(f"{folder} is not a folder. {expected}{instead}")


def check_one_run(folder: Path, files: Iterable[Path]) -> None:
    """Check that the results and status files under `folder` are from one run, and that `folder` is that run's own.

    Raises:
        ReportError: there are several runs, or the run is in a subfolder; the message names the folder to give.
    """
    places = sorted({path.parent for path in files})
    runs = sorted({_run_of(place, folder) for place in places}, key=lambda run: (len(run.parts), run))
    if len(runs) > 1:
        raise ReportError(
            f"{folder} holds {len(runs)} runs, which would be mixed in one row. Give each run's own folder: "
            f"{_named(runs)}."
        )
    if len(places) > 1:
        raise ReportError(
            f"{folder} has one {RECORD_NAME}, but results in several folders: {_named(places)}. "
            "Give each run its own --output_path."
        )
    if runs and runs[0] != folder and (runs[0] / RECORD_NAME).exists():
        raise ReportError(f"{folder} is not a run's own folder, but contains one. Give {runs[0]}.")


def runs_below(folder: Path) -> dict[str, Path]:
    """The runs with a record at most two levels below `folder`, by relative path."""
    found = sorted({path.parent for place in ("*", "*/*") for path in folder.glob(f"{place}/{RECORD_NAME}")})
    return {path.relative_to(folder).as_posix(): path for path in found}


def nothing_found(folder: Path) -> ReportError:
    """The error for a folder without results of either toolkit."""
    if not any(folder.iterdir()):
        return ReportError(f"{folder} is empty. Expected a finished run of lmms-eval or VLMEvalKit.")
    return ReportError(
        f"{folder} has neither a results file of lmms-eval (<date>_results.json) nor a status.json of VLMEvalKit, so "
        "its evaluation failed or is still running, or the path is wrong. Give lmms-eval's --output_path or "
        "VLMEvalKit's --work-dir, and look for `Error during evaluation` in the log."
    )


def _run_of(place: Path, top: Path) -> Path:
    """The run folder that `place` belongs to: the nearest parent with a record, else `place` itself."""
    for parent in (place, *place.parents):
        if (parent / RECORD_NAME).exists():
            return parent
        if parent == top:
            break
    return place


def _named(folders: Sequence[Path]) -> str:
    return listed([str(folder) for folder in folders], _NAMED)
