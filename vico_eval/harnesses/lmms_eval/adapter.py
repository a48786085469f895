"""A checkpoint with a compression method as a chat model of lmms-eval.

The classes that lmms-eval loads, one per kind of checkpoint and method, are in `vico_eval.harnesses.lmms_eval.models`.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from lmms_eval.api.instance import GenerationResult, Instance
from lmms_eval.api.model import lmms
from lmms_eval.models import get_model

from vico_eval.engine.engine import Engine
from vico_eval.engine.loading import Found, check_same_model, described, find_engine, open_rows
from vico_eval.engine.media import start_no_ghostscript, whole_images_only
from vico_eval.engine.previews import check_previews
from vico_eval.engine.requests import DeferredRequest, Request
from vico_eval.engine.settings import VLLM
from vico_eval.engine.tile_limits import tile_limit, total_tile_limit
from vico_eval.errors import ConfigError
from vico_eval.harnesses.earlier_answers import Asking, answer_keys
from vico_eval.harnesses.lmms_eval.data_sets import split_fingerprint
from vico_eval.harnesses.lmms_eval.kinds import Kind, check_kind
from vico_eval.harnesses.lmms_eval.passes import NOT_OPENED, PassRow, asked_here, read_pass, remember_asked
from vico_eval.harnesses.lmms_eval.processes import (
    ShardAnswered,
    check_own_gpus,
    ending_together,
    in_shard,
    note_shard,
)
from vico_eval.harnesses.lmms_eval.requests import (
    generation_of,
    left_out_until,
    messages_of,
    refuse_examples,
    system_instruction,
)
from vico_eval.harnesses.lmms_eval.rows import RowRun, ask
from vico_eval.harnesses.lmms_eval.scorers import scorers_of
from vico_eval.harnesses.lmms_eval.token_counts import result_of
from vico_eval.harnesses.pixel_limits import default_num_frames, pixel_limits
from vico_eval.harnesses.run_record import open_previews, run_record, title_of
from vico_eval.logs import logger
from vico_eval.paths import folder_argument
from vico_eval.runs.schema import LMMS_EVAL, AnswerKey
from vico_eval.runs.shards import parse_shard
from vico_eval.runs.write import RunFolder

OF_THE_ADAPTER = (
    *("record_dir", "previews", "resume", "keep_going", "shared_pass", "shard"),
    *("gpus_per_process", "batch_size", "device"),
)
"""Arguments of a model that this class handles itself."""


class CompressedModel(lmms):  # type: ignore[misc]
    """Base class of our models in lmms-eval, for all kinds of checkpoints.

    Arguments are the fields of `vico_eval.engine.settings.EngineSettings`, those of the method, and

    - `record_dir`: the run's folder, with its record, answers and accounts;
    - `previews`: whether small copies of images are kept in its folder `previews` (the default), or another folder;
    - `resume=true`: reuse the answers of a stopped run with the same arguments;
    - `keep_going=true`: record a document that can't be answered, and continue with the others;
    - `shared_pass`: the file of a pass (`vico_eval.harnesses.lmms_eval.passes`), whose other rows are answered as well;
    - `shard=2/8`: answer only this part of the documents, without scoring;
    - `gpus_per_process`: number of GPUs that `device_map` distributes the model over and no other process sees.

    An unknown argument is an error, although lmms-eval itself would ignore it.
    """

    is_simple = False

    kind: Kind
    """The kind of its checkpoints."""

    method_name: str | None = None
    """Set by the subclasses for one method."""

    def __init__(
        self,
        batch_size: int | str = 1,
        max_batch_size: int | None = None,
        device: str | None = None,
        record_dir: str | Path | None = None,
        previews: bool | str | Path = True,
        resume: bool = False,
        keep_going: bool = False,
        shared_pass: str | Path | None = None,
        shard: str | None = None,
        gpus_per_process: int | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__()
        start_no_ghostscript()
        for name, value in (("resume", resume), ("keep_going", keep_going)):
            if not isinstance(value, bool):
                raise ConfigError(f"{name} is {value!r}; expected true or false.")
        record_folder, pass_file = (
            folder_argument("record_dir", record_dir),
            folder_argument("shared_pass", shared_pass),
        )
        self._shard = None if shard is None else parse_shard(str(shard))
        check_previews(previews)
        if max_batch_size is not None:
            raise ConfigError("max_batch_size only belongs to --batch_size auto, which is not supported; drop it.")
        if not str(batch_size).isdigit():
            raise ConfigError(f"batch_size is {batch_size!r}; expected an integer, the number of documents.")
        arguments = self.engine_arguments(arguments)
        check_kind(self.kind, self.method_name, str(arguments["pretrained"]))
        self.accelerator = Accelerator()
        self._rank = self.accelerator.process_index
        self._world_size = self.accelerator.num_processes
        if arguments.get("device_map") is not None:
            check_own_gpus(self._world_size, gpus_per_process)
        elif self._world_size > 1 and device in (None, "cuda"):
            device = str(self.accelerator.device)
        self._documents = threading.Lock()
        self._opened: Engine | None = None
        self._others: list[RowRun] = []
        with ending_together(self._world_size):
            found = find_engine({**arguments, "batch_size": int(batch_size), "device": device})
            self._settings = found.settings
            thinks = found.settings.thinking or found.preprocessor.prompting.always_thinks
            self._thinking = self.kind.thinking if thinks else None
            if self._world_size > 1 and found.settings.engine == VLLM and found.settings.server is None:
                raise ConfigError(
                    f"got {self._world_size} processes and engine=vllm without server=: each would start vLLM on the "
                    "same GPU. Start servers and name them, or start one process with tensor_parallel_size."
                )
            self._is_in_pass = pass_file is not None
            rows = [] if pass_file is None else read_pass(pass_file)
            own = next((row for row in rows if row.folder == record_folder), None)
            path = record_folder or self._new_folder(found.method.name)
            with self.accelerator.main_process_first():
                self._own = self._row(found, path, resume, keep_going, own)
            if pass_file is not None:
                self._others = self._rows_beside(rows)
            # One preprocessor serves all rows.
            copies = found.preprocessor.previews = open_previews(self._run, previews)
            for row in self._others:
                if copies is not None:
                    row.run.note_previews(copies.folder)
            self.accelerator.wait_for_everyone()
            for row in self._rows:
                row.run.write_record()
            # Weights are loaded now, so that errors appear before data sets are loaded, unless they may not be needed.
            if not all(row.run.answers for row in self._rows):
                self._load()
        logger.info(f"record and answers of this run: {self._run.folder}")

    @classmethod
    def engine_arguments(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the engine's and the method's arguments out of a model's arguments.

        Raises:
            ConfigError: the checkpoint is missing, or a method is given although the class implies one.
        """
        if cls.method_name is not None and "method" in arguments:
            raise ConfigError(
                f"--model {cls.kind.model_of(cls.method_name)} takes no method=; --model {cls.kind.combined} does."
            )
        if "pretrained" not in arguments:
            raise ConfigError("no checkpoint was given; expected --model_args pretrained=FOLDER_OR_HUB_ID,...")
        num_frames = default_num_frames(LMMS_EVAL, cls.kind.name)
        defaults = {} if num_frames is None or "fps" in arguments else {"num_frames": num_frames}
        return {**defaults, **arguments, **({} if cls.method_name is None else {"method": cls.method_name})}

    @property
    def _rows(self) -> list[RowRun]:
        """Return this row, followed by those that share its pass."""
        return [self._own, *self._others]

    @property
    def _run(self) -> RunFolder:
        return self._own.run

    @property
    def _engine(self) -> Engine:
        """Return the engine with the methods of all rows."""
        return self._load() if self._opened is None else self._opened

    def _load(self) -> Engine:
        self._opened = engine = open_rows([row.found for row in self._rows], show_progress=self._rank == 0)
        of_model, of_engine = described(engine), {} if engine.backend is None else engine.backend.facts
        for row in self._rows:
            beside = [other.run.folder for other in self._rows if other is not row]
            row.run.note_model(**of_model, answered_with=beside, engine=of_engine)
            row.run.write_record()
        return engine

    def _row(
        self, found: Found, folder: Path, resume: bool, keep_going: bool, in_pass: PassRow | None = None
    ) -> RowRun:
        record = run_record(
            found,
            title=title_of(found.method),
            harness=LMMS_EVAL,
            num_processes=self._world_size,
            command=None if in_pass is None else in_pass.command,
        )
        run = RunFolder(folder, record, self._rank, resume=resume, shard=self._shard)
        return RowRun(found, run, keep_going=keep_going, asked=asked_here(folder) if self._is_in_pass else None)

    def _rows_beside(self, rows: Sequence[PassRow]) -> list[RowRun]:
        """Return the rows of a pass that this process hasn't answered yet. A row that can't be opened fails later, in
        its own evaluation."""
        opened: dict[str, RowRun] = {}
        with self.accelerator.main_process_first():
            for row in rows:
                folder = str(row.folder)
                if row.folder == self._run.folder or asked_here(row.folder) is not None or folder in opened:
                    continue
                try:
                    opened[folder] = self._open_beside(row)
                except NOT_OPENED as error:
                    logger.error(f"{row.folder} is not answered in this pass: {error}")
        kept = [list(opened)]
        if self._world_size > 1:
            broadcast_object_list(kept)  # from the first process, which alone knows which folders are free
        return [opened[folder] for folder in kept[0] if folder in opened]

    def _open_beside(self, row: PassRow) -> RowRun:
        model_class = get_model(row.model)
        if not issubclass(model_class, CompressedModel):
            raise ConfigError(f"model {row.model} is not one of this package's models.")
        arguments = {name: value for name, value in row.arguments.items() if name not in OF_THE_ADAPTER}
        device = self._own.found.settings.device if self._world_size > 1 else row.device
        found = find_engine(
            model_class.engine_arguments({**arguments, "batch_size": int(row.batch_size), "device": device})
        )
        check_same_model(self._own.found, found)
        resume, keep_going = (row.arguments.get(name) is True for name in ("resume", "keep_going"))
        return self._row(found, row.folder, resume, keep_going, row)

    @property
    def chat_template(self) -> str:
        """Reject lmms-eval's `--apply_chat_template`, which is the only caller.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            "--apply_chat_template (and --fewshot_as_multiturn) has no effect here: prompts are always written in the "
            "checkpoint's own template. Leave it out."
        )

    @property
    def apply_chat_template(self) -> str:
        """Reject `--apply_chat_template`; see `chat_template`. Raises ConfigError."""
        return self.chat_template

    @property
    def device(self) -> torch.device:
        """The device of the counts that lmms-eval's processes exchange."""
        opened = self._opened
        if opened is None or self._world_size > 1:
            device: torch.device = self.accelerator.device
        else:
            device = opened.model.decoder_device
        return device

    def generate_until(self, requests: list[Instance]) -> list[GenerationResult]:
        """Answer `requests` in order, each with its account. Answers in the run's folder are reused.

        Raises:
            UserError: a document, which the message names, can't be answered; with keep_going, `FAILURES_IN_A_ROW`
                documents.
            ConfigError: settings of lmms-eval have no effect here or contradict ours.
            ShardAnswered: raised instead of returning answers, if this is a shard.
        """
        with ending_together(self._world_size):
            self._note_data_sets(requests)
            refuse_examples(requests)
            instruction = self._system_instruction(requests)
            left_out = left_out_until(requests, thinks=self._thinking is not None)
            self._run.note_task_settings(left_out, instruction)
            tasks = {instance.args[4] for instance in requests}
            requests = in_shard(requests, self._shard)
            asked = [self._request(instance, instruction) for instance in requests]
            # The first argument is the question's text, unless a task makes its own messages; these are compared when
            # an answer is reused.
            keys = answer_keys(asked, (str(instance.args[0]) for instance in requests))
            answers = self._answer(asked, keys)
            if self._shard is None:
                return answers
            note_shard(self._own, tasks, requests, self._rank)
        raise ShardAnswered

    def _answer(self, requests: Sequence[DeferredRequest], keys: Sequence[AnswerKey]) -> list[GenerationResult]:
        asking = Asking(requests)
        try:
            for row in self._rows:
                row.begin(keys, asking, show_progress=self._rank == 0)
            if any(len(row.results) < len(keys) for row in self._rows):
                ask(self._engine, self._rows, asking)
        finally:
            self._end_pass()
        if failed := self._own.failed:
            logger.error(
                f"{failed} of {len(requests)} documents have no answer. lmms-eval's scores count them as wrong, "
                f"so don't use these; {self._run.folder}/failures.rank*.jsonl says what happened. The same command "
                "with resume=true asks only them again."
            )
        # lmms-eval needs something to score; the report checks the failures and drops the score.
        said = [self._own.results[number] for number in range(len(requests))]
        return [GenerationResult("", None) if one is None else result_of(*one) for one in said]

    def _end_pass(self) -> None:
        """Pass the rows' folders and results on to their own evaluations in this process."""
        if self._is_in_pass:
            for row in self._rows:
                remember_asked(row.run.folder, row.outcomes())
        for row in self._others:
            row.run.close()
            self._opened = None  # another row's request may come for rows that have ended
        self._others = []

    def _note_data_sets(self, requests: Sequence[Instance]) -> None:
        if self._rank != 0:
            return
        splits = {task: self.task_dict[task][split] for *_, task, split in (instance.args for instance in requests)}
        found = {task: known for task, split in splits.items() if (known := split_fingerprint(split)) is not None}
        if changed := self._run.changed_data_sets(found):
            logger.warning(
                f"the data of {', '.join(changed)} have changed since this run began; stored answers are compared with "
                "their documents one by one"
            )
        self._run.add_data_sets(found, scorers_of(requests))

    def generate_until_multi_round(self, requests: list[Instance]) -> list[str]:
        """Not supported: no benchmark of the tables has several rounds."""
        raise ConfigError("this model answers single-round tasks only; choose tasks of type generate_until.")

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Not supported: all benchmarks of the tables generate text."""
        raise ConfigError("this model generates answers and scores none; choose tasks of type generate_until.")

    def _system_instruction(self, requests: list[Instance]) -> str | None:
        instruction = system_instruction(requests)
        for name, is_given in (("system_prompt", self._settings.system_prompt), ("thinking", self._settings.thinking)):
            if instruction is not None and is_given not in (None, False):
                raise ConfigError(
                    f"got both --system_instruction and {name}=, and each is the system message. Leave one of them out."
                )
        return instruction

    def _request(self, instance: Instance, instruction: str | None = None) -> DeferredRequest:
        _, doc_to_messages, _, doc_id, task, split = instance.args
        key = f"{task}/{split}/{doc_id}"
        generation = generation_of(instance, thinking=self._thinking)
        settings = self._settings
        pixels = pixel_limits(
            LMMS_EVAL, self.kind.name, task, min_pixels=settings.min_pixels, max_pixels=settings.max_pixels
        )

        def load() -> Request:
            # Accessing a document decodes its images. One at a time, because tasks may not be thread-safe.
            with self._documents, whole_images_only():
                messages = messages_of(
                    doc_to_messages(self.task_dict[task][split][doc_id]), instruction, at_marks=self.kind.at_marks
                )
            return Request(
                key=key,
                messages=messages,
                generation=generation,
                max_tiles=tile_limit(task, settings.max_tiles),
                total_max_tiles=total_tile_limit(task, settings.total_max_tiles),
                min_pixels=pixels.min_pixels,
                max_pixels=pixels.max_pixels,
            )

        return DeferredRequest(key, generation, load)

    def _new_folder(self, method: str) -> Path:
        # All processes of a run share a folder, which one clock must name.
        name = [f"{datetime.now(timezone.utc):%Y%m%d-%H%M%S}-{method}"]
        if self._world_size > 1:
            broadcast_object_list(name)
        return Path("runs") / name[0]
