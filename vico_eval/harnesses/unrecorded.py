"""Runs that another program started: a record out of what their toolkit wrote, and words for what it leaves unknown."""

import itertools
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from vico_eval.harnesses.lmms_eval.results_files import Results, begun, model_arguments, run_settings
from vico_eval.runs.json_text import validate
from vico_eval.runs.schema import LMMS_EVAL, RECORD_VERSION, VLMEVALKIT, Checkpoint, RunRecord

BLANK = "blank, and without token counts it can't be told from a failure, which lmms-eval scores as wrong"
"""Why a document of such a run counts as one without an answer."""


def lmms_eval_record(folder: Path, results: Results) -> RunRecord:
    """What lmms-eval's own results file says of a run.

    Raises:
        ReportError: its date can't be read.
    """
    config = results.content["config"]
    model, arguments = str(config.get("model")), model_arguments(config.get("model_args"))
    # lmms-eval's own reading of `pretrained=` and what other models call it.
    checkpoint = str(arguments.pop("pretrained", None) or results.content.get("model_name") or "")
    name = Path(checkpoint).name
    settings = {
        key: value for key, value in run_settings(results.content).items() if key not in ("model", "model_args")
    }
    said = {
        "version": RECORD_VERSION,
        "system": model,
        "title": f"{name} ({model})" if name else model,
        "command": (),
        # As it names it: the branch and commit of the folder that it was started in, whatever that holds.
        "versions": {"lmms_eval_version": results.content.get("lmms_eval_version")},
        "checkpoint": Checkpoint(name=name or model, path=checkpoint, sha256=None),
        "donor": None,
        "method": model,
        "method_args": arguments,
        "settings": settings | {"batch_size": config.get("batch_size")},
        "dtype": None,
        "attention": None,
        "device": config.get("device"),
        "num_processes": None,
        "started": begun(results.path, results.content),
        "harness": LMMS_EVAL,
        "made_from": results.path.relative_to(folder).as_posix(),
    }
    return validate(RunRecord, said, str(results.path))


def vlmevalkit_record(folder: Path, path: Path, status: Mapping[str, Any]) -> RunRecord:
    """What VLMEvalKit's own status file says of a run."""
    name = str(status.get("model_name") or path.parent.name)
    command = tuple(map(str, status.get("argv") or ()))
    said = {
        "version": RECORD_VERSION,
        "system": name,
        "title": name,
        "command": command,
        "versions": {},
        "checkpoint": Checkpoint(name=name, path=name, sha256=None),
        "donor": None,
        "method": name,
        "method_args": {},
        "settings": {"limit": _option(command, "--limit")},
        "dtype": None,
        "attention": None,
        "device": None,
        "num_processes": status.get("world_size") or None,
        "started": _time(status.get("created_at")),
        "harness": VLMEVALKIT,
        "made_from": path.relative_to(folder).as_posix(),
    }
    return validate(RunRecord, said, str(path))


def blanks_count(task: str, number: int, documents: int) -> str:
    """What a reader has to know where blank answers count."""
    return (
        f"{task}: {number} of {documents} answers are blank or missing and, as asked for, count as lmms-eval scored "
        "them: as wrong, or as a guess where the task guesses for unreadable ones. Some may be failures."
    )


def what_is_unknown(toolkit: str) -> str:
    """What a reader has to know of such a run's row."""
    return (
        f"started by {toolkit} itself, so all that is known of it is what that wrote. Without token accounts the row "
        "has no ratio of compressed tiles, no share of visual tokens and no place in the picture of retention; "
        "checkpoint digest, dtype, attention, prompts and tile limits can't be compared with other rows'."
    )


def _option(command: tuple[str, ...], name: str) -> str | None:
    return next((value for option, value in itertools.pairwise(command) if option == name), None)


def _time(text: object) -> datetime | None:
    try:
        time = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return time if time.tzinfo else None
