"""lmms-eval's results files: the newest per task, all with the same settings.

Format: lmms-eval 0.7.3, `<run>/[<model folder>/]<date>_results.json` and `<date>_samples_<task>.jsonl`.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone, tzinfo
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from vico_eval.errors import ReportError
from vico_eval.runs.json_text import read_json
from vico_eval.runs.schema import RunRecord

# Settings in which results files of one run must agree. Batch size, devices and tasks may differ.
_SETTINGS = ("model", "model_args", "limit", "offset", "gen_kwargs", "random_seed", "numpy_seed", "torch_seed")

_MODEL_ARGUMENT = re.compile(r",(?=\w+=)")

# Dates are rounded to seconds.
_CLOCK_STEP = timedelta(seconds=2)


class Results(NamedTuple):
    """The location of a task's numbers."""

    path: Path
    task: str
    content: dict[str, Any]
    """The whole file's content, which other tasks may share."""


def newest_by_task(folder: Path, paths: Sequence[Path]) -> list[Results]:
    """Return the newest results file of each task, from `paths` in order of date.

    Raises:
        ReportError: a file isn't lmms-eval's, settings differ between files, or there is no task.
    """
    newest: dict[str, Results] = {}
    first: tuple[Path, dict[str, Any]] | None = None
    for path in paths:
        content = read_json(path)
        for key in ("results", "n-samples", "config", "configs", "versions"):
            if not isinstance(content.get(key), dict):
                raise ReportError(f"{path} has no object `{key}`; expected a results file of lmms-eval 0.7.3 or newer.")
        settings = run_settings(content)
        if first and settings != first[1]:
            different = ", ".join(key for key in settings if settings[key] != first[1][key])
            raise ReportError(
                f"{folder} has results with different settings: {first[0].name} and {path.name} differ in {different}. "
                "Give each run its own --output_path; of those here, move one with its samples to another folder."
            )
        first = first or (path, settings)
        for name in content["n-samples"]:
            newest[name] = Results(path, name, content)
    if not newest:
        raise ReportError(f"{paths[-1]} lists no task under `n-samples`; nothing was evaluated.")
    return [newest[name] for name in sorted(newest)]


def run_settings(content: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a whole run that a results file contains."""
    config = content["config"]
    given = config.get("resolved_cli_args") or {}
    return {key: config.get(key) for key in _SETTINGS} | {
        "num_fewshot": given.get("num_fewshot"),
        "system_instruction": content.get("system_instruction"),
    }


def model_arguments(given: object) -> dict[str, Any]:
    """Parse `model_args` by name; lmms-eval accepts `a=1,b=2` and, from Python, a mapping."""
    if isinstance(given, Mapping):
        return dict(given)
    pairs = (part.partition("=") for part in _MODEL_ARGUMENT.split(str(given or "")) if part)
    return {name.strip(): value for name, _, value in pairs}


def expected_documents(results: Results) -> range:
    """Return the documents that a run must have answered.

    Raises:
        ReportError: the file's numbers are missing or invalid.
    """
    counts = results.content["n-samples"][results.task]
    offset = results.content["config"].get("offset") or 0
    try:
        original, effective = int(counts["original"]), int(counts["effective"])
        return range(int(offset), min(int(offset) + effective, original))
    except (KeyError, TypeError, ValueError) as error:
        raise ReportError(
            f"{results.path}: `n-samples.{results.task}` is {counts!r}; expected `original` and `effective`."
        ) from error


def samples_path(results: Results) -> Path:
    """Return the file with a task's answers.

    Raises:
        ReportError: no such file has the same date.
    """
    date = results.path.name.removesuffix("_results.json")
    path = results.path.with_name(f"{date}_samples_{results.task}.jsonl")
    if path.is_file():
        return path
    others = sorted(other.name for other in results.path.parent.glob(f"*_samples_{results.task}.jsonl"))
    found = f" {', '.join(others)} is there, of another run." if others else ""
    raise ReportError(
        f"{path} is missing, so it can't be checked that every document of {results.task} has an answer: lmms-eval "
        f"scores one that failed as wrong, which its aggregated number doesn't show.{found} Run lmms-eval with "
        "--log_samples."
    )


def begun(path: Path, content: dict[str, Any]) -> datetime | None:
    """Return when lmms-eval started; None if its time zone is unknown, as when called from Python.

    Raises:
        ReportError: the date is unreadable.
    """
    zone = _zone((content["config"].get("resolved_cli_args") or {}).get("timezone"))
    if zone is None:
        return None
    try:
        return datetime.strptime(str(content.get("date")), "%Y%m%d_%H%M%S").replace(tzinfo=zone)
    except ValueError as error:
        raise ReportError(f"{path} has times that can't be read: {error}.") from error


def check_times(folder: Path, record: RunRecord, path: Path, content: dict[str, Any]) -> None:
    """Reject results of another run in the record's folder, such as a run before a failed one or under other
    conditions.

    lmms-eval takes its date before loading the model and its total time when saving, so a run's own record was started
    in between.
    """
    start, total = begun(path, content), content.get("total_evaluation_time_seconds")
    if record.started is None or start is None or not total:
        return
    try:
        saved = start + timedelta(seconds=float(total))
    except ValueError as error:
        raise ReportError(f"{path} has times that can't be read: {error}.") from error
    loaded = (record.started, *record.continued)
    if not any(start - _CLOCK_STEP <= time <= saved + _CLOCK_STEP for time in loaded):
        raise ReportError(
            f"{folder} has a record of a run that started at {loaded[-1].isoformat()}, but its results "
            f"({path.name}) are of a run from {start.isoformat()} to {saved.isoformat(timespec='seconds')}. "
            "The later run failed or was another model's; repeat it into a folder of its own."
        )


def _zone(name: str | None) -> tzinfo | None:
    if name == "Asia/Singapore":
        return timezone(timedelta(hours=8))  # lmms-eval's default, defined here for machines without time zone data
    try:
        return ZoneInfo(name) if name else None
    except (ZoneInfoNotFoundError, ValueError):
        return None
