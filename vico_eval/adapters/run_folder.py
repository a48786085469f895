"""What a run leaves beside the harness's own output: a record of its conditions, and every document's answer.

Answers are kept as they come, so that a run that was stopped loses none; lmms-eval itself writes them when all are
there. It also drops token counts when its response cache answers, so accounts are kept here too, by task and document.
"""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime, timezone
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from vico_eval.engine.account import TokenAccount
from vico_eval.engine.loading import Opened
from vico_eval.engine.previews import Previews, open_previews
from vico_eval.engine.requests import DeferredRequest, Request
from vico_eval.errors import OutputError
from vico_eval.internvl.checkpoint import Checkpoint
from vico_eval.paths import free_path, models_dir

RECORDED_VERSIONS = (
    *("vico-eval", "torch", "transformers", "lmms-eval", "ms-vlmeval", "accelerate", "Pillow", "av", "datasets"),
)
"""Of those that are installed: an environment has one of the two harnesses."""

CONDITIONS = ("checkpoint", "donor", "method", "method_args", "settings", "dtype", "attention", "harness", "versions")
"""What of a record decides an answer."""


class StoredAnswer(BaseModel):
    """One line of `answers.rank*.jsonl`: what was said to a document, and what it cost."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: str
    split: str
    doc_id: int | str
    """A number in lmms-eval; the row's index in VLMEvalKit, which may hold words."""

    repeat: int
    """How many times the same document had been asked before; benchmarks may count passes among many answers."""

    asked: str
    """Fingerprint of the question and of the settings that the answer was generated with."""

    text: str
    account: TokenAccount


AnswerKey = tuple[str, int, str]
"""Key of the request, `task/split/number`; how many times it had been asked before; fingerprint of what was asked."""


def answer_keys(requests: Iterable[Request | DeferredRequest], questions: Iterable[str]) -> list[AnswerKey]:
    """What the answer of each request is stored under.

    Args:
        requests: what is asked.
        questions: the text of each, as far as it is known before pictures are opened.
    """
    times: Counter[str] = Counter()
    keys = []
    for request, question in zip(requests, questions, strict=True):
        asked = sha256(f"{request.generation!r}\n{question}".encode(errors="surrogatepass")).hexdigest()[:16]
        keys.append((request.key, times[request.key], asked))
        times[request.key] += 1
    return keys


class RunFolder:
    """The folder of one run. Every process writes its own files of answers and failures; the first one the record.

    A folder whose record has the same conditions is continued: where lmms-eval's response cache answers, nothing is
    counted again. The last line of a document holds. Answers of a run of other conditions are set aside, by name
    (`answers.rank0.jsonl.old1`).
    """

    def __init__(self, folder: Path, record: dict[str, Any], rank: int = 0, *, resume: bool = False) -> None:
        """
        Args:
            resume: whether answers that an earlier run of the same conditions left are taken over.

        Raises:
            OutputError: the folder can't be made or written.
        """
        self.folder = folder
        self.answers: dict[AnswerKey, StoredAnswer] = {}
        """Those that need not be given again."""

        self.failed: set[str] = set()
        """Documents that had no answer in the run that is continued, `task/split/number`."""

        self._record = record
        self._rank = rank
        try:
            folder.mkdir(parents=True, exist_ok=True)
            earlier = self._earlier_record()
            continues = earlier is not None
            if earlier is not None:
                self._record |= {"started": earlier["started"], "continued": self._starts(earlier)}
                self._record["previews"] = earlier.get("previews")
            elif rank == 0:
                self._drop_files_of_others()
            if continues and resume:
                self.answers = self._read_answers()
                self.failed = self._read_failed()
            self._answers = self._open("answers", continues)
            self._failures = self._open("failures", continues)
        except OSError as error:
            raise OutputError(
                f"the run's folder {folder} can't be written: {error}. Pass another record_dir."
            ) from error

    def _open(self, kind: str, continues: bool) -> IO[str]:
        path = self.folder / f"{kind}.rank{self._rank}.jsonl"
        if not continues and path.exists():
            path.replace(free_path(path.with_name(f"{path.name}.old")))
        file = path.open("a", encoding="utf-8")
        if file.tell():
            file.write("\n")  # a run that was killed may have left half a line
        return file

    def _drop_files_of_others(self) -> None:
        """What an earlier run that had more processes left; the files of this run's processes are theirs to empty."""
        for file in self.folder.glob("*.rank*.jsonl"):
            rank = file.stem.rpartition(".rank")[2]
            if rank.isdigit() and int(rank) >= self._record["num_processes"]:
                file.unlink()

    def _read_failed(self) -> set[str]:
        return {f"{line['task']}/{line['split']}/{line['doc_id']}" for line in self._lines("failures")}

    def _read_answers(self) -> dict[AnswerKey, StoredAnswer]:
        found = {}
        for line in self._lines("answers"):
            with suppress(ValidationError):
                answer = StoredAnswer.model_validate(line)
                found[f"{answer.task}/{answer.split}/{answer.doc_id}", answer.repeat, answer.asked] = answer
        return found

    def _lines(self, kind: str) -> Iterator[dict[str, Any]]:
        """What all processes of the earlier run wrote; a line that is cut off is none."""
        for file in sorted(self.folder.glob(f"{kind}.rank*.jsonl")):
            for line in file.read_text(encoding="utf-8").split("\n"):
                with suppress(json.JSONDecodeError):
                    yield json.loads(line)

    def open_previews(self, asked: bool | str) -> Previews | None:
        """Where small copies of pictures go, by the model argument `previews`; the record will name it.

        The record of a run that is continued without any still names the folder of the answers that are taken over.

        Raises:
            ConfigError, OutputError: as `vico_eval.engine.previews.open_previews`.
        """
        previews = open_previews(asked, self.folder / "previews")
        if previews is not None:
            self._record["previews"] = Path(os.path.relpath(previews.folder, self.folder)).as_posix()
        return previews

    def write_record(self) -> None:
        """`record.json`, by the first process only, after every process has looked at the one before."""
        if self._rank == 0:
            (self.folder / "record.json").write_text(json.dumps(self._record, indent=2) + "\n", encoding="utf-8")

    def _earlier_record(self) -> dict[str, Any] | None:
        """The record that the folder has, if it is of a run of the same conditions."""
        file = self.folder / "record.json"
        if not file.is_file() or other_conditions(self.folder, self._record):
            return None
        values: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return values

    def _starts(self, earlier: dict[str, Any]) -> list[str]:
        """When a run that was started before has been started again."""
        return [*earlier.get("continued", ()), self._record["started"]]

    def add(self, key: AnswerKey, text: str, account: TokenAccount) -> None:
        """Keep a document's answer."""
        name, repeat, asked = key
        line = _document(name) | {"repeat": repeat, "asked": asked}
        self._write(self._answers, line | {"text": text, "account": account.to_dict()})

    def add_failure(self, key: AnswerKey, reason: str) -> None:
        """Note that a document has no answer, and why."""
        self._write(self._failures, _document(key[0]) | {"reason": reason})

    @staticmethod
    def _write(file: IO[str], line: dict[str, Any]) -> None:
        file.write(json.dumps(line) + "\n")
        file.flush()


def _document(key: str) -> dict[str, Any]:
    task, split, number = key.rsplit("/", 2)
    return {"task": task, "split": split, "doc_id": int(number) if number.isdecimal() else number}


def other_conditions(folder: Path, record: Mapping[str, Any]) -> tuple[str, ...]:
    """In which conditions the run whose record is in `folder` differs from `record`; none where there is no run."""
    earlier = folder / "record.json"
    if not earlier.is_file():
        return ()
    try:
        values = json.loads(earlier.read_text(encoding="utf-8"))
    except json.JSONDecodeError:
        return CONDITIONS
    return tuple(name for name in CONDITIONS if values.get(name) != record[name])


def run_record(opened: Opened, *, title: str, harness: str, num_processes: int) -> dict[str, Any]:
    """The conditions of a run: what a number needs beside it to be reported."""
    engine = opened.engine
    return {
        "version": 1,
        "system": opened.method.name,
        "title": title,
        "command": _command(),
        "versions": _versions(),
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
        "previews": None,
    }


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in RECORDED_VERSIONS:
        with suppress(PackageNotFoundError):
            found[name.replace("-", "_").lower()] = version(name)
    return found


def title_of(method: str) -> str:
    """The row's title on the method's model card; the method's name where it has none."""
    card = models_dir() / "systems" / f"{method}.yaml"
    if not card.is_file():
        return method
    values: Mapping[str, Any] = yaml.safe_load(card.read_text(encoding="utf-8"))
    return str(values["title"])


def _identity(checkpoint: Checkpoint) -> dict[str, str]:
    identity = checkpoint.identity()
    return identity | {"path": _from_here(identity["path"])}


def _command() -> list[str]:
    """What was typed, `python -m lmms_eval ...` or ours, with paths that mean the same on another machine."""
    program = Path(sys.argv[0])
    module = program.parent.name if program.name == "__main__.py" else program.name.replace("-", "_")
    # lmms-eval takes hub tokens as arguments, and records are meant to be shown.
    arguments = (re.sub(r"(token=)[^,]+", r"\1***", argument) for argument in sys.argv[1:])
    start = ["vico-eval"] if module == "vico_eval" else ["python", "-m", module]
    return [*start, *map(_from_here, arguments)]


def _from_here(text: str) -> str:
    """`text` with paths below the working directory made relative to it."""
    return text.replace(f"{Path.cwd()}/", "")
