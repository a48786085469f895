"""Runs started by VLMEvalKit itself: a record made from the status file."""

import itertools
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from vico_eval.runs.json_text import validate
from vico_eval.runs.schema import VERSION, VLMEVALKIT, Checkpoint, RunRecord


def vlmevalkit_record(folder: Path, path: Path, status: Mapping[str, Any]) -> RunRecord:
    """Make a run's record from VLMEvalKit's status file."""
    name = str(status.get("model_name") or path.parent.name)
    command = tuple(map(str, status.get("argv") or ()))
    said = {
        "version": VERSION,
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


def _option(command: tuple[str, ...], name: str) -> str | None:
    return next((value for option, value in itertools.pairwise(command) if option == name), None)


def _time(text: object) -> datetime | None:
    try:
        time = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return time if time.tzinfo else None
