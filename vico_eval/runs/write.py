"""Write a run's folder: a record of the run's conditions, and every document's answer.

Answers are written as they arrive, so that a stopped run loses none; lmms-eval itself writes them only at the end. It
also drops token counts when its response cache answers, so accounts are kept here too, by task and document.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from vico_eval.errors import OutputError, ReportError, listed
from vico_eval.files import write_json
from vico_eval.logs import logger
from vico_eval.paths import free_path
from vico_eval.runs.folders import ANSWERS, FAILURES
from vico_eval.runs.holding import Held, alone_for_a_moment, hold, others_at_work
from vico_eval.runs.journal import Journal
from vico_eval.runs.read import read_record
from vico_eval.runs.schema import (
    RECORD_NAME,
    REQUEST_NAME,
    AnswerKey,
    AnswerSeconds,
    RunRecord,
    RunRequest,
    StoredAnswer,
    StoredFailure,
    TokenAccount,
)
from vico_eval.runs.shards import Shard, ShardTask, shard_files, write_shard
from vico_eval.runs.staleness import other_conditions

MAX_NAMED = 5

LOCK_NAME = ".lock"
"""Lock file in a run's folder, held by the command that writes there."""

UNKNOWN = "unknown"
"""Placeholder for a record's dtype or device until a model is loaded."""


@dataclass(frozen=True)
class Asked:
    """Fingerprints of a request, as in `StoredAnswer`."""

    words: str | None = None
    files: str | None = None


NOTHING = Asked()


class RunFolder:
    """The folder of one run. Every process writes its own files of answers and failures; the first also writes the
    record.

    A folder is used by one command at a time, or by one per shard. If the existing record has the same conditions, the
    run is continued, and answers from lmms-eval's response cache keep the counts recorded before. The last line for a
    document is the valid one. Answers recorded under other conditions are renamed together with their record
    (`answers.rank0.jsonl.old1`).

    With several processes, the first must create it before the others, because it tidies existing files.
    """

    def __init__(
        self, folder: Path, record: RunRecord, rank: int = 0, *, resume: bool = False, shard: Shard | None = None
    ) -> None:
        """
        Args:
            shard: the part of the documents to answer; None for all.
                        resume: reuse the answers of an earlier run under the same conditions.

                    Raises:
                        OutputError: the folder can't be created or written, or another command is using it.
        """
        self.folder = folder
        self.answers: dict[AnswerKey, StoredAnswer] = {}
        """Answers that can be reused if they are requested again."""

        self._asked: dict[tuple[str, int], set[str]] = {}
        """Fingerprints of the requests behind `answers`, by document and repeat."""

        self.failed: set[str] = set()
        """Documents that failed in the run that is continued, as `task/split/number`."""

        self._record = record
        self._rank = rank
        self._shard = shard
        name = None if shard is None else shard.name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if rank == 0:
                self._held = _hold(folder, shard)
            self._answers = Journal(folder, StoredAnswer, ANSWERS, rank, name)
            self._failures = Journal(folder, StoredFailure, FAILURES, rank, name)
            with nullcontext() if shard is None or rank else alone_for_a_moment(self._lock_file):
                earlier = self._earlier_record()
                if earlier is not None:
                    self._continue(earlier, resume=resume)
                elif shard is not None and rank == 0:
                    # Shards that start later continue from this record.
                    write_json(folder / RECORD_NAME, self._record.to_dict())
        except OSError as error:
            raise OutputError(
                f"the run's folder {folder} can't be written: {error}. Pass another record_dir."
            ) from error

    def _earlier_record(self) -> RunRecord | None:
        """The folder's record if its run had the same conditions; otherwise move its files aside, log that, and return
        None."""
        try:
            earlier = read_record(self.folder)
            if earlier is not None and self._record.dtype == UNKNOWN:
                self._update(dtype=earlier.dtype)
            different = () if earlier is None else other_conditions(earlier, self._record)
            if earlier is not None and not different:
                return earlier
            reason = f"it has another {', '.join(different)}" if different else f"it has no {RECORD_NAME}"
        except ReportError as error:
            reason = str(error).removesuffix(".")
        if self._rank == 0:
            if self._shard is not None and others_at_work(self._lock_file, self._shard):
                raise OutputError(f"other shards are running in {self.folder}, and this one can't join them: {reason}.")
            aside = [*self._answers.set_aside(), *self._failures.set_aside()]
            for file in (*shard_files(self.folder), self.folder / RECORD_NAME):
                if file.exists():
                    aside.append(file.replace(free_path(file.with_name(f"{file.name}.old"))))
            if aside:
                logger.warning(
                    f"the run in {self.folder} can't be continued: {reason}. Its files were renamed to "
                    f"{', '.join(path.name for path in aside)}, and every document is asked again"
                )
        return None

    def _continue(self, earlier: RunRecord, *, resume: bool) -> None:
        """Continue the run whose record is `earlier`."""
        now = self._record
        assert now.started is not None  # only records of runs that other programs started lack a time
        kept = ("started", "device", "previews", "data_sets", "scorers", "left_out_until", "answered_with", "engine")
        self._record = now.model_copy(
            update={
                **{name: getattr(earlier, name) for name in kept},
                "continued": (*earlier.continued, now.started),
                "commits": tuple(dict.fromkeys((*earlier.commits, *now.commits))),
            }
        )
        if self._rank == 0:
            self._answers.mend()
            self._failures.mend()
        if resume:
            self.answers = {answer.key: answer for answer in self._answers.lines()}
            for name, repeat, asked in self.answers:
                self._asked.setdefault((name, repeat), set()).add(asked)
            self.failed = {failure.document for failure in self._failures.lines()}

    def asked_otherwise(self, keys: Sequence[AnswerKey]) -> set[AnswerKey]:
        """Keys of stored answers to different questions about the documents of `keys`."""
        others = {(name, repeat, one) for name, repeat, _ in keys for one in self._asked.get((name, repeat), ())}
        return (others - set(keys)) & self.answers.keys()

    def drop_stale(self, keys: Collection[AnswerKey]) -> None:
        """Move aside the answers to documents whose text or images have changed."""
        if not keys:
            return
        self._answers.take_out(lambda answer: answer.key in keys, "stale")
        for key in keys:
            del self.answers[key]
        names = sorted({name for name, *_ in keys})
        logger.warning(
            f"the text or images of {len(names)} document(s) have changed since they were answered, so they are asked "
            f"again: {listed(names, MAX_NAMED)}. Their earlier answers were moved to "
            f"{self.folder}/{ANSWERS}.rank*.jsonl.stale"
        )

    def note_model(
        self, *, dtype: str, device: str, answered_with: Sequence[Path] = (), engine: Mapping[str, Any] | None = None
    ) -> None:
        """Record the model that was loaded to answer the remaining documents.

        Args:
            dtype: its compute dtype.
            device: its decoder's device.
            answered_with: folders of the other runs answered in the same pass.
            engine: as in `RunRecord.engine`.
        """
        before, now = self._record.engine.get("version"), (engine or {}).get("version")
        if before not in (None, now):
            logger.warning(f"the first answers in {self.folder} are from vLLM {before}, new ones are from vLLM {now}")
        beside = [Path(os.path.relpath(folder, self.folder)).as_posix() for folder in answered_with]
        known = self._record.answered_with
        together = tuple(dict.fromkeys((*known, *beside)))
        self._update(dtype=dtype, device=device, answered_with=together, engine=dict(engine or {}))

    def close(self) -> None:
        """Release the folder for other commands, as the end of the process also does."""
        if self._rank == 0:
            self._held.release()

    def note_previews(self, previews: Path) -> None:
        """Record the folder of image thumbnails.

        If a continued run makes no thumbnails, its record keeps the folder of the reused answers.
        """
        self._update(previews=Path(os.path.relpath(previews, self.folder)).as_posix())

    def write_record(self) -> None:
        """Write the record. Only the first process does, and only after all processes have read the earlier record."""
        if self._rank != 0:
            return
        with nullcontext() if self._shard is None else alone_for_a_moment(self._lock_file):
            if self._shard is not None and (found := read_record(self.folder)) is not None:
                self._join(found)
            write_json(self.folder / RECORD_NAME, self._record.to_dict())

    def note_shard(self, tasks: Mapping[str, ShardTask]) -> None:
        """Record that this shard has finished these tasks. Only the first process may call this."""
        assert self._shard is not None
        write_shard(self.folder, self._shard, tasks)

    @property
    def _lock_file(self) -> Path:
        return self.folder / LOCK_NAME

    def _join(self, found: RunRecord) -> None:
        """Merge in what other shards have written to the record since this one read it.

        Raises:
            OutputError: they run under other conditions, some of which are known only once the model is loaded.
        """
        own = self._record
        dtype = next((dtype for dtype in (own.dtype, found.dtype) if dtype != UNKNOWN), UNKNOWN)
        device = next((device for device in (own.device, found.device) if device != UNKNOWN), UNKNOWN)
        known = {"dtype": dtype if found.dtype == UNKNOWN else found.dtype}
        self._update(dtype=dtype)
        if different := other_conditions(found.model_copy(update=known), self._record):
            raise OutputError(
                f"another shard of {self.folder} runs with another {', '.join(different)}; expected the same for "
                "all shards of a run. Give all of them the same --device and --model-args."
            )
        self._update(
            device=device,
            continued=tuple(sorted({*found.continued, *own.continued})),
            commits=tuple(dict.fromkeys((*found.commits, *own.commits))),
            data_sets={**found.data_sets, **own.data_sets},
            scorers={**found.scorers, **own.scorers},
            left_out_until={**found.left_out_until, **own.left_out_until},
            answered_with=tuple(dict.fromkeys((*found.answered_with, *own.answered_with))),
            engine=own.engine or found.engine,
        )

    def changed_data_sets(self, fingerprints: Mapping[str, str]) -> tuple[str, ...]:
        """The tasks whose data have changed since the run began, according to their fingerprints."""
        before = self._record.data_sets
        return tuple(task for task, found in fingerprints.items() if before.get(task, found) != found)

    def add_data_sets(self, fingerprints: Mapping[str, str], scorers: Mapping[str, str]) -> None:
        """Record the fingerprints of the tasks' data and of the code that scores them."""
        record = self._record
        self._update(data_sets={**record.data_sets, **fingerprints}, scorers={**record.scorers, **scorers})
        self.write_record()

    def note_task_settings(self, left_out_until: Mapping[str, Sequence[str]], system_instruction: str | None) -> None:
        """Record settings that a harness passes only with its requests; rewrite the record if they changed it.

        Args:
            left_out_until: ignored stop strings, by task.
            system_instruction: the harness's system message.
        """
        before = self._record
        left_out = before.left_out_until | {task: tuple(until) for task, until in left_out_until.items()}
        self._update(left_out_until=left_out, system_instruction=system_instruction)
        if self._record != before:
            self.write_record()

    def add(
        self,
        key: AnswerKey,
        text: str,
        account: TokenAccount,
        asked: Asked = NOTHING,
        seconds: AnswerSeconds | None = None,
    ) -> None:
        """Write a document's answer to the journal."""
        (task, split, doc_id), repeat, question = _document(key[0]), key[1], key[2]
        self._answers.append(
            StoredAnswer(
                task=task,
                split=split,
                doc_id=doc_id,
                repeat=repeat,
                asked=question,
                words=asked.words,
                files=asked.files,
                text=text,
                seconds=seconds,
                account=account,
            )
        )

    def add_failure(self, key: AnswerKey, reason: str) -> None:
        """Record that a document has no answer, with the reason."""
        task, split, doc_id = _document(key[0])
        self._failures.append(StoredFailure(task=task, split=split, doc_id=doc_id, reason=reason))

    def _update(self, **values: object) -> None:
        self._record = self._record.model_copy(update=values)


def write_request(folder: Path, request: RunRequest) -> None:
    """Write the request that `vico-eval run` is to carry out in `folder`."""
    write_json(folder / REQUEST_NAME, request.model_dump(mode="json"), indent=1)


def _hold(folder: Path, shard: Shard | None) -> FileLock:
    """Lock the folder, or this shard's part of it, for this process.

    Raises:
        OutputError: another process holds it, or the file system has no locks.
    """
    try:
        return hold(folder / LOCK_NAME, shard)
    except Held as error:
        raise OutputError(
            f"another command is using {folder}, and its answers would be mixed with this one's. Wait for it, or pass "
            "another record_dir."
        ) from error


def _document(key: str) -> tuple[str, str, int | str]:
    """Split a request's key into task, split and document."""
    task, split, number = key.rsplit("/", 2)
    return task, split, int(number) if number.isdecimal() else number
