"""A run's folder as it is written: a record of the run's conditions, and every document's answer.

Answers are kept as they come, so that a run that was stopped loses none; lmms-eval itself writes them when all are
there. It also drops token counts when its response cache answers, so accounts are kept here too, by task and document.
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
"""In a run's folder; held by whoever writes there."""

UNKNOWN = "unknown"
"""A record's dtype or device until a model is loaded, where nothing else says it."""


@dataclass(frozen=True)
class Asked:
    """Fingerprints of a request that has been made; as in `StoredAnswer`."""

    words: str | None = None
    files: str | None = None


NOTHING = Asked()


class RunFolder:
    """The folder of one run. Every process writes its own files of answers and failures; the first one the record.

    One command has a folder at a time, or one for each shard of its documents. A folder whose record has the same
    conditions is continued: where lmms-eval's response cache answers, nothing is counted again. The last line of a
    document holds. Answers of a run of other conditions are set aside with its record, by name
    (`answers.rank0.jsonl.old1`).

    Of several processes the first one makes it before the others do, since it puts in order what is there.
    """

    def __init__(
        self, folder: Path, record: RunRecord, rank: int = 0, *, resume: bool = False, shard: Shard | None = None
    ) -> None:
        """
        Args:
            shard: which part of the documents is answered; None for all.
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
                    # Other shards that start now go on with it.
                    write_json(folder / RECORD_NAME, self._record.to_dict())
        except OSError as error:
            raise OutputError(
                f"the run's folder {folder} can't be written: {error}. Pass another record_dir."
            ) from error

    def _earlier_record(self) -> RunRecord | None:
        """The record that the folder has, if it is of a run of the same conditions; all else is set aside, and said."""
        try:
            earlier = read_record(self.folder)
            if earlier is not None and self._record.dtype == UNKNOWN:
                self._update(dtype=earlier.dtype)
            different = () if earlier is None else other_conditions(earlier, self._record)
            if earlier is not None and not different:
                return earlier
            reason = f"it is a run of another {', '.join(different)}" if different else f"it has no {RECORD_NAME}"
        except ReportError as error:
            reason = str(error).removesuffix(".")
        if self._rank == 0:
            if self._shard is not None and others_at_work(self._lock_file, self._shard):
                raise OutputError(f"other shards are at work in {self.folder}, and this one can't join them: {reason}.")
            aside = [*self._answers.set_aside(), *self._failures.set_aside()]
            for file in (*shard_files(self.folder), self.folder / RECORD_NAME):
                if file.exists():
                    aside.append(file.replace(free_path(file.with_name(f"{file.name}.old"))))
            if aside:
                logger.warning(
                    f"the run in {self.folder} can't be continued: {reason}. Its files are set aside as "
                    f"{', '.join(path.name for path in aside)}, and everything is asked again"
                )
        return None

    def _continue(self, earlier: RunRecord, *, resume: bool) -> None:
        """Go on with the run whose record is `earlier`."""
        now = self._record
        assert now.started is not None  # only what other programs started says no time
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
        """Keys of answers that are there to other questions about the same documents than those of `keys`."""
        others = {(name, repeat, one) for name, repeat, _ in keys for one in self._asked.get((name, repeat), ())}
        return (others - set(keys)) & self.answers.keys()

    def drop_stale(self, keys: Collection[AnswerKey]) -> None:
        """Set aside answers to documents that have other words or pictures now."""
        if not keys:
            return
        self._answers.take_out(lambda answer: answer.key in keys, "stale")
        for key in keys:
            del self.answers[key]
        names = sorted({name for name, *_ in keys})
        logger.warning(
            f"{len(names)} document(s) have other words or pictures than when they were answered and are asked "
            f"again: {listed(names, MAX_NAMED)}. Their earlier answers are set aside as "
            f"{self.folder}/{ANSWERS}.rank*.jsonl.stale"
        )

    def note_model(
        self, *, dtype: str, device: str, answered_with: Sequence[Path] = (), engine: Mapping[str, Any] | None = None
    ) -> None:
        """A model is loaded, to answer what has no answer yet.

        Args:
            dtype: that it computes in.
            device: of its decoder.
            answered_with: folders of the runs that it answers in the same pass.
            engine: as `RunRecord.engine`.
        """
        before, now = self._record.engine.get("version"), (engine or {}).get("version")
        if before not in (None, now):
            logger.warning(f"the first answers in {self.folder} are of vLLM {before}, those from now on of vLLM {now}")
        beside = [Path(os.path.relpath(folder, self.folder)).as_posix() for folder in answered_with]
        known = self._record.answered_with
        together = tuple(dict.fromkeys((*known, *beside)))
        self._update(dtype=dtype, device=device, answered_with=together, engine=dict(engine or {}))

    def close(self) -> None:
        """Let another command have the folder. A process that ends does so too."""
        if self._rank == 0:
            self._held.release()

    def note_previews(self, previews: Path) -> None:
        """Have the record name the folder of small copies of pictures.

        The record of a run that is continued without any still names the folder of the answers that are taken over.
        """
        self._update(previews=Path(os.path.relpath(previews, self.folder)).as_posix())

    def write_record(self) -> None:
        """By the first process only, after every process has looked at the record before."""
        if self._rank != 0:
            return
        with nullcontext() if self._shard is None else alone_for_a_moment(self._lock_file):
            if self._shard is not None and (found := read_record(self.folder)) is not None:
                self._join(found)
            write_json(self.folder / RECORD_NAME, self._record.to_dict())

    def note_shard(self, tasks: Mapping[str, ShardTask]) -> None:
        """Note that this shard has asked all its documents of these tasks. By the first process only."""
        assert self._shard is not None
        write_shard(self.folder, self._shard, tasks)

    @property
    def _lock_file(self) -> Path:
        return self.folder / LOCK_NAME

    def _join(self, found: RunRecord) -> None:
        """Take what other shards have put into the record since this one looked at it.

        Raises:
            OutputError: they answer under other conditions, which some know only once the model is loaded.
        """
        own = self._record
        dtype = next((dtype for dtype in (own.dtype, found.dtype) if dtype != UNKNOWN), UNKNOWN)
        device = next((device for device in (own.device, found.device) if device != UNKNOWN), UNKNOWN)
        known = {"dtype": dtype if found.dtype == UNKNOWN else found.dtype}
        self._update(dtype=dtype)
        if different := other_conditions(found.model_copy(update=known), self._record):
            raise OutputError(
                f"another shard of {self.folder} answers with another {', '.join(different)}; expected the same for "
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
        """The tasks whose data are others than when the run began, by what their data are known by."""
        before = self._record.data_sets
        return tuple(task for task, found in fingerprints.items() if before.get(task, found) != found)

    def add_data_sets(self, fingerprints: Mapping[str, str], scorers: Mapping[str, str]) -> None:
        """Record what the data of tasks are known by, and the code that scores them."""
        record = self._record
        self._update(data_sets={**record.data_sets, **fingerprints}, scorers={**record.scorers, **scorers})
        self.write_record()

    def note_task_settings(self, left_out_until: Mapping[str, Sequence[str]], system_instruction: str | None) -> None:
        """Put into the record what a harness says only when it asks; the record is written anew if that changes it.

        Args:
            left_out_until: by task, stop strings that no answer ends at.
            system_instruction: the harness's, which is the system message.
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
        """Keep a document's answer."""
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
        """Note that a document has no answer, and why."""
        task, split, doc_id = _document(key[0])
        self._failures.append(StoredFailure(task=task, split=split, doc_id=doc_id, reason=reason))

    def _update(self, **values: object) -> None:
        self._record = self._record.model_copy(update=values)


def write_request(folder: Path, request: RunRequest) -> None:
    """Note what `vico-eval run` is to do in `folder`."""
    write_json(folder / REQUEST_NAME, request.model_dump(mode="json"), indent=1)


def _hold(folder: Path, shard: Shard | None) -> FileLock:
    """The folder for this process, or its part of it, until it ends.

    Raises:
        OutputError: another process has it, or the file system has no locks.
    """
    try:
        return hold(folder / LOCK_NAME, shard)
    except Held as error:
        raise OutputError(
            f"another command works in {folder}, and its answers would be mixed with this one's. Wait for it, or pass "
            "another record_dir."
        ) from error


def _document(key: str) -> tuple[str, str, int | str]:
    """Task, split and document of a request's key."""
    task, split, number = key.rsplit("/", 2)
    return task, split, int(number) if number.isdecimal() else number
