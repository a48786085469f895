"""What a run leaves beside the harness's own output: a record of its conditions, and every document's account.

lmms-eval drops token counts when its response cache answers, so accounts are kept here too, by task and document.
"""

from __future__ import annotations

import json
import platform
import re
import sys
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

from vico_eval.engine.account import TokenAccount
from vico_eval.engine.loading import Opened
from vico_eval.errors import OutputError
from vico_eval.internvl.checkpoint import Checkpoint

RECORDED_VERSIONS = ("vico-eval", "torch", "transformers", "lmms-eval", "accelerate", "Pillow", "av", "datasets")


CONDITIONS = ("checkpoint", "donor", "method", "method_args", "settings", "dtype", "attention")
"""What of a record decides an account."""


class RunFolder:
    """The folder of one run. Every process writes its own file of accounts; the first one writes the record.

    A folder whose record has the same conditions is continued: where the response cache answers, nothing is counted
    again. The last line of a document holds.
    """

    def __init__(self, folder: Path, record: dict[str, Any], rank: int = 0) -> None:
        """Raises OutputError if the folder can't be made or written."""
        self.folder = folder
        self._record = record
        self._rank = rank
        try:
            folder.mkdir(parents=True, exist_ok=True)
            mode = "a" if self._continues() else "w"
            if mode == "w" and rank == 0:
                self._drop_accounts_of_others()
            self._file: IO[str] = (folder / f"accounts.rank{rank}.jsonl").open(mode, encoding="utf-8")
            if self._file.tell():
                self._file.write("\n")  # a run that was killed may have left half a line
        except OSError as error:
            raise OutputError(
                f"the run's folder {folder} can't be written: {error}. Pass another record_dir."
            ) from error

    def _drop_accounts_of_others(self) -> None:
        """Accounts of an earlier run that had more processes; those of this run's processes are theirs to empty."""
        for file in self.folder.glob("accounts.rank*.jsonl"):
            rank = file.name.removeprefix("accounts.rank").removesuffix(".jsonl")
            if rank.isdigit() and int(rank) >= self._record["num_processes"]:
                file.unlink()

    def write_record(self) -> None:
        """`record.json`, by the first process only, after every process has looked at the one before."""
        if self._rank == 0:
            (self.folder / "record.json").write_text(json.dumps(self._record, indent=2) + "\n", encoding="utf-8")

    def _continues(self) -> bool:
        earlier = self.folder / "record.json"
        if not earlier.is_file():
            return False
        try:
            values = json.loads(earlier.read_text(encoding="utf-8"))
        except json.JSONDecodeError:
            return False
        return all(values.get(name) == self._record[name] for name in CONDITIONS)

    def add(self, key: str, account: TokenAccount) -> None:
        """One document's account; `key` is `task/split/number`."""
        task, split, number = key.rsplit("/", 2)
        line = {"task": task, "split": split, "doc_id": int(number), "account": account.to_dict()}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()


def run_record(opened: Opened, *, title: str, harness: str, num_processes: int) -> dict[str, Any]:
    """The conditions of a run: what a number needs beside it to be reported."""
    engine = opened.engine
    versions = {name.replace("-", "_").lower(): version(name) for name in RECORDED_VERSIONS}
    return {
        "version": 1,
        "system": opened.method.name,
        "title": title,
        "command": _command(),
        "versions": versions | {"python": platform.python_version()},
        "checkpoint": _identity(opened.checkpoint),
        "donor": _identity(opened.donor) if opened.donor is not None else None,
        "method": opened.method.name,
        "method_args": opened.method.arguments(),
        "settings": {
            "batch_size": opened.settings.batch_size,
            "max_tiles": opened.settings.max_tiles,
            "total_max_tiles": opened.settings.total_max_tiles,
            "num_frames": opened.settings.num_frames,
            "label_images": opened.settings.label_images,
            "system_prompt": opened.settings.system_prompt,
            "thinking": opened.settings.thinking,
        },
        "dtype": str(engine.model.dtype).removeprefix("torch."),
        "attention": opened.settings.attn_implementation,
        "device": str(engine.model.decoder_device),
        "num_processes": num_processes,
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "harness": harness,
    }


def _identity(checkpoint: Checkpoint) -> dict[str, str]:
    identity = checkpoint.identity()
    return identity | {"path": _from_here(identity["path"])}


def _command() -> list[str]:
    """What was typed, as `python -m lmms_eval ...`, with paths that mean the same on another machine."""
    program = Path(sys.argv[0])
    module = program.parent.name if program.name == "__main__.py" else program.name.replace("-", "_")
    # lmms-eval takes hub tokens as arguments, and records are meant to be shown.
    arguments = (re.sub(r"(token=)[^,]+", r"\1***", argument) for argument in sys.argv[1:])
    return ["python", "-m", module, *map(_from_here, arguments)]


def _from_here(text: str) -> str:
    """`text` with paths below the working directory made relative to it."""
    return text.replace(f"{Path.cwd()}/", "")
