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
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from vico_eval.engine.account import TokenAccount
from vico_eval.engine.loading import Opened
from vico_eval.engine.preprocess import Prepared
from vico_eval.engine.previews import Previews, open_previews
from vico_eval.engine.requests import Request
from vico_eval.errors import OutputError, listed
from vico_eval.families.internvl.checkpoint import Checkpoint
from vico_eval.files import lock, write_json
from vico_eval.harnesses.earlier_answers import AnswerKey, Asked, Asking
from vico_eval.logs import logger
from vico_eval.paths import free_path, models_dir
from vico_eval.runs.journal import Journal, StoredAnswer, StoredFailure

RECORD = "record.json"
NOTHING = Asked()
MAX_NAMED = 5

RECORDED_VERSIONS = (
    *("vico-eval", "torch", "transformers", "lmms-eval", "ms-vlmeval", "accelerate", "Pillow", "av", "datasets"),
)
"""Of those that are installed: an environment has one of the two harnesses."""

CONDITIONS = ("checkpoint", "donor", "method", "method_args", "settings", "dtype", "attention", "harness", "versions")
"""What of a record decides an answer."""


class RunFolder:
    """The folder of one run. Every process writes its own files of answers and failures; the first one the record.

    One command has a folder at a time. A folder whose record has the same conditions is continued: where lmms-eval's
    response cache answers, nothing is counted again. The last line of a document holds. Answers of a run of other
    conditions are set aside with its record, by name (`answers.rank0.jsonl.old1`).

    Of several processes the first one makes it before the others do, since it puts in order what is there.
    """

    def __init__(self, folder: Path, record: dict[str, Any], rank: int = 0, *, resume: bool = False) -> None:
        """
        Args:
            resume: whether answers that an earlier run of the same conditions left are taken over.

        Raises:
            OutputError: the folder can't be made or written, or another command works in it.
        """
        self.folder = folder
        self.answers: dict[AnswerKey, StoredAnswer] = {}
        """Those that need not be given again, if they are still asked for."""

        self._asked: dict[tuple[str, int], set[str]] = {}
        """Of these, by document and repeat, what was asked."""

        self.failed: set[str] = set()
        """Documents that had no answer in the run that is continued, `task/split/number`."""

        self._record = record
        self._rank = rank
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if rank == 0:
                self._held = _hold(folder)
            self._answers = Journal(folder, StoredAnswer, "answers", rank)
            self._failures = Journal(folder, StoredFailure, "failures", rank)
            earlier = self._earlier_record()
            if earlier is not None:
                self._record |= {"started": earlier["started"], "continued": self._starts(earlier)}
                taken_over: dict[str, Any] = {"previews": None, "data_sets": {}, "left_out_until": {}}
                self._record |= {name: earlier.get(name, value) for name, value in taken_over.items()}
                if rank == 0:
                    self._answers.mend()
                    self._failures.mend()
                if resume:
                    self.answers = {answer.key: answer for answer in self._answers.lines()}
                    for name, repeat, asked in self.answers:
                        self._asked.setdefault((name, repeat), set()).add(asked)
                    self.failed = {failure.document for failure in self._failures.lines()}
        except OSError as error:
            raise OutputError(
                f"the run's folder {folder} can't be written: {error}. Pass another record_dir."
            ) from error

    def _earlier_record(self) -> dict[str, Any] | None:
        """The record that the folder has, if it is of a run of the same conditions; all else is set aside, and said."""
        try:
            earlier = read_record(self.folder)
            different = () if earlier is None else _different(earlier, self._record)
            if earlier is not None and not different:
                return earlier
            reason = f"it is a run of another {', '.join(different)}" if different else f"it has no {RECORD}"
        except OutputError as error:
            reason = str(error)
        if self._rank == 0:
            aside = [*self._answers.set_aside(), *self._failures.set_aside()]
            record = self.folder / RECORD
            if record.exists():
                aside.append(record.replace(free_path(record.with_name(f"{RECORD}.old"))))
            if aside:
                logger.warning(
                    f"the run in {self.folder} can't be continued: {reason}. Its files are set aside as "
                    f"{', '.join(path.name for path in aside)}, and everything is asked again"
                )
        return None

    def _starts(self, earlier: dict[str, Any]) -> list[str]:
        """When a run that was started before has been started again."""
        return [*earlier.get("continued", ()), self._record["started"]]

    def take_over(
        self,
        keys: Sequence[AnswerKey],
        asking: Asking,
        prepare: Callable[[Request], Prepared],
        *,
        show_progress: bool = False,
    ) -> dict[int, StoredAnswer]:
        """Answers that are there already, by number of request: those that were given to the same words and pictures.

        The others are set aside, and said.

        Args:
            keys: of the requests.
            asking: the requests.
            prepare: makes tiles of one.
        """
        found = {number: self.answers[key] for number, key in enumerate(keys) if key in self.answers}
        stale = {keys[number] for number in asking.changed(found, prepare, show_progress=show_progress)}
        others = {(name, repeat, one) for name, repeat, _ in keys for one in self._asked.get((name, repeat), ())}
        stale |= (others - set(keys)) & self.answers.keys()
        if stale:
            self._answers.take_out(lambda answer: answer.key in stale, "stale")
            for key in stale:
                del self.answers[key]
            names = sorted({name for name, *_ in stale})
            logger.warning(
                f"{len(names)} document(s) have other words or pictures than when they were answered and are asked "
                f"again: {listed(names, MAX_NAMED)}. Their earlier answers are set aside as "
                f"{self.folder}/answers.rank*.jsonl.stale"
            )
        if unknown := sum(answer.account.media is None and answer.account.tiles > 0 for answer in found.values()):
            logger.warning(
                f"{unknown} answer(s) were written by an older version without a digest of their pictures; they are "
                "taken over unchecked"
            )
        return {number: answer for number, answer in found.items() if keys[number] not in stale}

    def open_previews(self, asked: bool | str | Path) -> Previews | None:
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
            write_json(self.folder / RECORD, self._record)

    def changed_data_sets(self, fingerprints: Mapping[str, str]) -> tuple[str, ...]:
        """The tasks whose data are others than when the run began, by what their data are known by."""
        before = self._record["data_sets"]
        return tuple(task for task, found in fingerprints.items() if before.get(task, found) != found)

    def add_data_sets(self, fingerprints: Mapping[str, str]) -> None:
        """Record what the data of tasks are known by."""
        self._record["data_sets"] = {**self._record["data_sets"], **fingerprints}
        self.write_record()

    def note_task_settings(self, left_out_until: Mapping[str, Sequence[str]], system_instruction: str | None) -> None:
        """Put into the record what a harness says only when it asks; the record is written anew if that changes it.

        Args:
            left_out_until: by task, stop strings that no answer ends at.
            system_instruction: the harness's, which is the system message.
        """
        left_out = self._record["left_out_until"] | {task: list(until) for task, until in left_out_until.items()}
        noted = {"left_out_until": left_out, "system_instruction": system_instruction}
        if any(self._record[name] != value for name, value in noted.items()):
            self._record |= noted
            self.write_record()

    def add(self, key: AnswerKey, text: str, account: TokenAccount, asked: Asked = NOTHING) -> None:
        """Keep a document's answer.

        Raises:
            DocumentError: its account has a number that is not finite.
        """
        name, repeat, question = key
        line = _document(name) | {"repeat": repeat, "asked": question, "words": asked.words, "files": asked.files}
        self._answers.append(line | {"text": text, "account": account.to_dict()}, name)

    def add_failure(self, key: AnswerKey, reason: str) -> None:
        """Note that a document has no answer, and why."""
        self._failures.append(_document(key[0]) | {"reason": reason}, key[0])


def _hold(folder: Path) -> FileLock:
    """The folder for this process, until it ends.

    Raises:
        OutputError: another process has it.
    """
    held = lock(folder / ".lock")
    try:
        held.acquire(timeout=0)
    except Timeout as error:
        raise OutputError(
            f"another command works in {folder}, and its answers would be mixed with this one's. Wait for it, or pass "
            "another record_dir."
        ) from error
    return held


def _document(key: str) -> dict[str, Any]:
    task, split, number = key.rsplit("/", 2)
    return {"task": task, "split": split, "doc_id": int(number) if number.isdecimal() else number}


def read_record(folder: Path) -> dict[str, Any] | None:
    """The record that is in `folder`; None where there is none.

    Raises:
        OutputError: it is empty, cut off or something else.
    """
    file = folder / RECORD
    if not file.exists():
        return None
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise OutputError(f"{file} can't be read: {error}") from error
    if not isinstance(values, dict) or not isinstance(values.get("started"), str):
        raise OutputError(f"{file} is not the record of a run")
    return values


def other_conditions(folder: Path, record: Mapping[str, Any]) -> tuple[str, ...]:
    """In which conditions the run whose record is in `folder` differs from `record`; none where there is no run.

    Raises:
        OutputError: its record can't be read.
    """
    try:
        earlier = read_record(folder)
    except OutputError as error:
        raise OutputError(f"{error}. Put the run's record back, or move {folder} away.") from error
    return () if earlier is None else _different(earlier, record)


def _different(earlier: Mapping[str, Any], record: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(name for name in CONDITIONS if earlier.get(name) != record[name])


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
        "data_sets": {},
        "left_out_until": {},
        "system_instruction": None,
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
