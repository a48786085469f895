"""InternVL with a compression method behind lmms-eval's chat interface.

`vico_eval.adapters.lmms_models.<method>` is the model class of a method: lmms-eval asks for it by that path.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
from lmms_eval.api.model import lmms
from lmms_eval.protocol import ChatMessages
from loguru import logger

from vico_eval.adapters.asked import AnswerKey, Asking, answer_keys
from vico_eval.adapters.data_sets import split_fingerprint
from vico_eval.adapters.internvl_x import check_names_every_part, method_of
from vico_eval.adapters.run_folder import RunFolder, run_record, title_of
from vico_eval.engine.account import TokenAccount
from vico_eval.engine.engine import Answer
from vico_eval.engine.loading import open_engine
from vico_eval.engine.media import start_no_ghostscript, whole_images_only
from vico_eval.engine.requests import (
    DeferredRequest,
    GenerationSettings,
    ImageInput,
    Message,
    Request,
    Text,
    VideoInput,
)
from vico_eval.engine.tile_limits import tile_limit, total_tile_limit
from vico_eval.errors import ConfigError, DocumentError
from vico_eval.internvl.checkpoint import find_checkpoint
from vico_eval.methods.registry import method_names

FAILURES_IN_A_ROW = 20
"""So many documents one after another fail for a reason that is not theirs."""


@contextmanager
def ending_together(world_size: int) -> Iterator[None]:
    """Has all processes of a run end where one of them fails.

    lmms-eval catches an error and ends that process with 0; the others would wait for it for hours. One that ends with
    1 has its launcher stop them.

    Raises:
        SystemExit: there are several processes, and this one failed.
    """
    try:
        yield
    except Exception as error:
        if world_size == 1:
            raise
        logger.exception(f"{error} All processes of this run are stopped.")
        sys.exit(1)


def _result(text: str, account: TokenAccount) -> GenerationResult:
    return GenerationResult(text, AccountedTokens(account))


class AccountedTokens(TokenCounts):  # type: ignore[misc]
    """lmms-eval's token counts that carry the whole account into its samples file."""

    def __init__(self, account: TokenAccount) -> None:
        super().__init__(
            input_tokens=account.text_tokens + account.visual_tokens, output_tokens=account.generated_tokens
        )
        self.account = account

    def to_dict(self) -> dict[str, Any]:
        """lmms-eval's counts, and ours under `account`."""
        return {**super().to_dict(), "account": self.account.to_dict()}


class CompressedInternVL(lmms):  # type: ignore[misc]
    """`--model compressed_internvl --model_args pretrained=...,method=...`.

    Arguments are the fields of `vico_eval.engine.loading.EngineSettings`, those of the method, and

    - `record_dir`: the run's folder, of record, answers and accounts;
    - `previews`: whether small copies of pictures are kept in its folder `previews` (by default they are), or a folder;
    - `resume=true`: answers that a stopped run of the same arguments left there are taken over;
    - `keep_going=true`: a document that can't be answered is noted there, and the others are still answered.

    One that nobody knows is an error; lmms-eval itself would swallow it.
    """

    is_simple = False

    method_name: str | None = None
    """Fixed by the classes that stand for one method."""

    def __init__(
        self,
        batch_size: int | str = 1,
        max_batch_size: int | None = None,
        device: str | None = None,
        record_dir: str | None = None,
        previews: bool | str = True,
        resume: bool = False,
        keep_going: bool = False,
        **arguments: Any,
    ) -> None:
        super().__init__()
        start_no_ghostscript()
        for name, value in (("resume", resume), ("keep_going", keep_going)):
            if not isinstance(value, bool):
                raise ConfigError(f"{name} is {value!r}; expected true or false.")
        if max_batch_size is not None:
            raise ConfigError("max_batch_size only belongs to --batch_size auto, which is not supported; drop it.")
        if not str(batch_size).isdigit():
            raise ConfigError(f"batch_size is {batch_size!r}; expected a whole number of documents.")
        if self.method_name is not None:
            if "method" in arguments:
                raise ConfigError(
                    f"--model {self.method_name}_internvl takes no method=; --model compressed_internvl does."
                )
            arguments["method"] = self.method_name
        if "pretrained" not in arguments:
            raise ConfigError("no checkpoint was given; expected --model_args pretrained=FOLDER_OR_HUB_ID,...")
        self.accelerator = Accelerator()
        self._rank = self.accelerator.process_index
        self._world_size = self.accelerator.num_processes
        if self._world_size > 1:
            if arguments.get("device_map") is not None:
                raise ConfigError(
                    f"got {self._world_size} processes and device_map, which gives one model several GPUs; expected "
                    "one of the two. With device_map start one process: python -m lmms_eval ..."
                )
            if device in (None, "cuda"):
                device = str(self.accelerator.device)
        self._keep_going = keep_going
        self._documents = threading.Lock()
        with ending_together(self._world_size):
            self._open({**arguments, "batch_size": int(batch_size), "device": device}, record_dir, previews, resume)
        logger.info(f"record and answers of this run: {self._run.folder}")

    def _open(self, arguments: dict[str, Any], record_dir: str | None, previews: bool | str, resume: bool) -> None:
        opened = open_engine(arguments, show_progress=self._rank == 0)
        self._engine = opened.engine
        self._settings = opened.settings
        record = run_record(
            opened, title=title_of(opened.method.name), harness="lmms-eval", num_processes=self._world_size
        )
        path = self._run_path(record_dir, opened.method.name)
        with self.accelerator.main_process_first():
            self._run = RunFolder(path, record, self._rank, resume=resume)
        self._engine.preprocessor.previews = self._run.open_previews(previews)
        self.accelerator.wait_for_everyone()
        self._run.write_record()

    @property
    def device(self) -> torch.device:
        """Where lmms-eval puts the counts that its processes exchange."""
        return self._engine.model.decoder_device

    def generate_until(self, requests: list[Instance]) -> list[GenerationResult]:
        """Answers in the order of `requests`, each with its account. Those that the run's folder has are not repeated.

        Raises:
            UserError: a document that can't be answered, named; with keep_going, `FAILURES_IN_A_ROW` of them.
        """
        with ending_together(self._world_size):
            self._note_data_sets(requests)
            asked = [self._request(instance) for instance in requests]
            # What stands first is the text of the question, unless a task has messages of its own; these are compared
            # when an answer is taken over.
            keys = answer_keys(asked, (str(instance.args[0]) for instance in requests))
            return self._answer(asked, keys)

    def _answer(self, requests: Sequence[DeferredRequest], keys: Sequence[AnswerKey]) -> list[GenerationResult]:
        asking = Asking(requests)
        stored = self._run.take_over(keys, asking, self._engine.preprocessor, show_progress=self._rank == 0)
        results = {number: _result(answer.text, answer.account) for number, answer in stored.items()}
        if stored:
            logger.info(f"{len(stored)} of {len(requests)} answers are those of the run that is continued")
        failed: set[str] = set()
        in_a_row = 0
        for number, outcome in self._engine.outcomes(asking.requests, known=stored):
            if isinstance(outcome, Answer):
                self._run.add(keys[number], outcome.text, outcome.account, asking.made[number])
                results[number] = _result(outcome.text, outcome.account)
                in_a_row = 0
                continue
            if not self._keep_going:
                raise outcome
            name = keys[number][0]
            self._run.add_failure(keys[number], str(outcome))
            logger.error(str(outcome))
            # Those that failed before say nothing new; between them others may have been answered before.
            in_a_row += name not in failed | self._run.failed
            failed.add(name)
            if in_a_row == FAILURES_IN_A_ROW:
                raise DocumentError(f"{in_a_row} documents in a row could not be answered; the last: {outcome}")
            # lmms-eval needs something to score; the report looks at the failures and drops the score.
            results[number] = GenerationResult("", None)
        if failed:
            logger.error(
                f"{len(failed)} of {len(requests)} documents have no answer. lmms-eval's scores count them as wrong, "
                f"so don't use these; {self._run.folder}/failures.rank*.jsonl says what happened. The same command "
                "with resume=true asks only them again."
            )
        return [results[number] for number in range(len(requests))]

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
        self._run.add_data_sets(found)

    def generate_until_multi_round(self, requests: list[Instance]) -> list[str]:
        """Not offered: no benchmark of the tables asks in rounds."""
        raise ConfigError("this model answers single-round tasks only; choose tasks of type generate_until.")

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Not offered: all benchmarks of the tables generate."""
        raise ConfigError("this model generates answers and scores none; choose tasks of type generate_until.")

    def _request(self, instance: Instance) -> DeferredRequest:
        _, doc_to_messages, gen_kwargs, doc_id, task, split = instance.args
        key = f"{task}/{split}/{doc_id}"
        generation = GenerationSettings.from_gen_kwargs(
            {name: value for name, value in gen_kwargs.items() if name != "until" or not self._settings.thinking}
        )

        def load() -> Request:
            # Looking at a document decodes its pictures. One at a time: tasks need not be safe in threads.
            with self._documents, whole_images_only():
                messages = ChatMessages(messages=doc_to_messages(self.task_dict[task][split][doc_id])).messages
            return Request(
                key=key,
                messages=tuple(Message(message.role, tuple(map(_part, message.content))) for message in messages),
                generation=generation,
                max_tiles=tile_limit(task, self._settings.max_tiles),
                total_max_tiles=total_tile_limit(task, self._settings.total_max_tiles),
            )

        return DeferredRequest(key, generation, load)

    def _run_path(self, record_dir: str | None, method: str) -> Path:
        if record_dir is not None:
            return Path(record_dir)
        # All processes of a run share a folder, and only one clock may name it.
        name = [f"{datetime.now(timezone.utc):%Y%m%d-%H%M%S}-{method}"]
        if self._world_size > 1:
            broadcast_object_list(name)
        return Path("runs") / name[0]


class InternVLX(CompressedInternVL):
    """`--model internvl_x --model_args pretrained=...,variant=rvtc+pvtc`.

    The variant says which of InternVL-X's parts run, and names all that the checkpoint holds.
    """

    def __init__(self, variant: str | None = None, **arguments: Any) -> None:
        if "method" in arguments:
            raise ConfigError("--model internvl_x takes variant= and no method=; --model compressed_internvl does.")
        method = method_of(variant)
        if "pretrained" in arguments:
            allow_pickle = arguments.get("allow_pickle", False)
            check_names_every_part(variant, find_checkpoint(arguments["pretrained"], allow_pickle=allow_pickle))
        super().__init__(method=method, **arguments)


def _part(content: Any) -> Text | ImageInput | VideoInput:
    if content.type == "text":
        return Text(content.text)
    if content.type == "image":
        return ImageInput(content.url)
    if content.type == "video":
        return VideoInput(content.url, start_s=content.start_time, end_s=content.end_time)
    raise ConfigError(f"a document holds {content.type}; this model takes text, images and video.")


def __getattr__(name: str) -> type[CompressedInternVL]:
    """The model class of method `name`, so that a new method needs no class here."""
    if name not in method_names():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return type(f"{name}_internvl", (CompressedInternVL,), {"method_name": name, "__module__": __name__})
