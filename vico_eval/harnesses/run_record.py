"""The record of a run: everything that must be known about a reported number."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import yaml

from vico_eval.bench.costs import model_costs
from vico_eval.engine import previews
from vico_eval.engine.loading import Found
from vico_eval.engine.settings import TRANSFORMERS
from vico_eval.families.family import FamilyCheckpoint
from vico_eval.methods.interface import Part
from vico_eval.methods.registry import Method
from vico_eval.paths import models_dir
from vico_eval.runs import schema
from vico_eval.runs.schema import RunRecord
from vico_eval.runs.staleness import commit, versions
from vico_eval.runs.write import UNKNOWN, RunFolder
from vico_eval.server_address import hide_in_addresses


def run_record(
    found: Found,
    *,
    title: str,
    harness: str,
    num_processes: int,
    settings: Mapping[str, Any] | None = None,
    command: tuple[str, ...] | None = None,
) -> RunRecord:
    """Make the record of a run that starts now.

    Args:
        found: the checkpoint and method, loaded or not.
        title: the row's title.
        harness: the toolkit.
        num_processes: number of processes that share the documents.
        settings: further settings, which override the engine's.
        command: the command that repeats the run, if another process started this one.
    """
    given = found.settings
    code = commit()
    return RunRecord(
        version=schema.VERSION,
        system=found.method.name,
        title=title,
        command=_command() if command is None else shown(command),
        versions=versions(),
        commits=() if code is None else (code,),
        checkpoint=_identity(found.checkpoint),
        donor=_identity(found.donor) if found.donor is not None else None,
        method=found.method.name,
        method_args=found.method.arguments(),
        settings={
            "batch_size": given.batch_size,
            "max_tiles": given.max_tiles,
            "total_max_tiles": given.total_max_tiles,
            # Only if given, because records of earlier runs lack this setting and would otherwise differ.
            **{
                name: value
                for name in ("tiles", "min_pixels", "max_pixels", "fps")
                if (value := getattr(given, name)) is not None
            },
            "num_frames": given.num_frames,
            "label_images": given.label_images,
            "system_prompt": given.system_prompt,
            "thinking": given.thinking,
            **({} if given.engine == TRANSFORMERS else {"engine": given.engine}),
            **(settings or {}),
        },
        dtype=found.dtype or UNKNOWN,
        attention=given.attn_implementation,
        device=found.device or UNKNOWN,
        num_processes=num_processes,
        started=datetime.now(timezone.utc).replace(microsecond=0),
        harness=harness,
        costs=model_costs(found),
    )


def title_of(method: Method) -> str:
    """Return the row's title from the method's model card, or else its name, with additions for its arguments."""
    card, title = models_dir() / "systems" / f"{method.name}.yaml", method.name
    if card.is_file():
        values: Mapping[str, Any] = yaml.safe_load(card.read_text(encoding="utf-8"))
        title = str(values["title"])
    if any(type(part).remark is not Part.remark for part in method.parts):
        title = title.partition(" (")[0]  # the card's remark applies to the card's arguments only
    remarks = [part.remark for part in method.parts if part.remark is not None]
    return f"{title} ({', '.join(remarks)})" if remarks else title


def open_previews(run: RunFolder, asked: bool | str | Path) -> previews.Previews | None:
    """Open the folder of previews for the model argument `previews`, which the run's record names.

    Raises:
        ConfigError, OutputError: see `vico_eval.engine.previews.open_previews`.
    """
    opened = previews.open_previews(asked, run.folder / "previews")
    if opened is not None:
        run.note_previews(opened.folder)
    return opened


def _identity(checkpoint: FamilyCheckpoint) -> schema.Checkpoint:
    identity = checkpoint.identity()
    return schema.Checkpoint(name=identity["name"], path=_from_here(identity["path"]), sha256=identity["sha256"])


def _command() -> tuple[str, ...]:
    """Return the command as typed (`python -m lmms_eval ...` or ours), with paths that are valid on other machines."""
    program = Path(sys.argv[0])
    module = program.parent.name if program.name == "__main__.py" else program.name.replace("-", "_")
    start = ["vico-eval"] if module == "vico_eval" else ["python", "-m", module]
    return shown((*start, *sys.argv[1:]))


def shown(command: Sequence[str]) -> tuple[str, ...]:
    """Return a command for the record: without secrets, with paths that are valid on other machines."""
    # lmms-eval accepts hub tokens as arguments, and records are meant to be shared.
    return tuple(_from_here(hide_in_addresses(re.sub(r"(token=)[^,]+", r"\1***", word))) for word in command)


def _from_here(text: str) -> str:
    """Return `text` with paths below the working directory made relative."""
    return text.replace(f"{Path.cwd()}/", "")
