"""A checkpoint with a compression method as a VLMEvalKit model, for all kinds of checkpoints.

What is asked in which words is said by the classes of `vico_eval.harnesses.vlmevalkit.models`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from vlmeval.smp import LMUDataRoot
from vlmeval.vlm.base import BaseModel

from vico_eval.digests import file_digest
from vico_eval.engine.engine import Engine
from vico_eval.engine.media import start_no_ghostscript
from vico_eval.engine.requests import DeferredRequest, GenerationSettings, Request
from vico_eval.engine.settings import EngineSettings
from vico_eval.errors import ConfigError, OutputError, UserError
from vico_eval.harnesses.earlier_answers import Asking, answer_keys, take_over
from vico_eval.harnesses.vlmevalkit.scorers import scorer_of
from vico_eval.runs.write import RunFolder


class CompressedModel(BaseModel):  # type: ignore[misc]
    """An engine as a VLMEvalKit model.

    VLMEvalKit passes local models one document at a time and has no hook for batches.
    """

    def __init__(
        self, engine: Engine, settings: EngineSettings, run: RunFolder, generation: GenerationSettings
    ) -> None:
        BaseModel.__init__(self)  # a subclass also inherits from a class whose __init__ would load its model
        start_no_ghostscript()
        self.failure: UserError | None = None
        """Why the last document has no answer. VLMEvalKit logs the error and continues with the next data set."""

        self._engine = engine
        self._settings = settings
        self._run = run
        self._generation = generation
        self._task = ""
        self._dataset: Any = None

    @abstractmethod
    def message_of(self, line: pd.Series, dataset: str) -> list[dict[str, Any]]:
        """Return VLMEvalKit's message about a document of an image data set, with the prompt of its own adapter."""

    @abstractmethod
    def film_message_of(self, line: pd.Series, dataset: Any) -> list[dict[str, Any]]:
        """Return VLMEvalKit's message about a document of a video data set, which is passed as an object."""

    @abstractmethod
    def request_of(
        self, key: str, message: Sequence[dict[str, Any]], *, is_video: bool, dataset: str | None
    ) -> Request:
        """Convert a message to a request; called when images are read."""

    def start(self, task: str, kept: Path) -> None:
        """Set the data set of the following documents, by its name in VLMEvalKit's `--data`.

        A video data set's own name doesn't include its variant (`_64frame`, `_subs`).

        Args:
            task: the data set.
            kept: where VLMEvalKit keeps results of earlier commands, whose documents it doesn't ask again.

        Raises:
            OutputError: it has answers to a table that has changed since then.
        """
        self._task = task
        self.failure = None
        known = _data_fingerprint(task)
        if self._run.changed_data_sets(known) and (files := sorted(kept.rglob(f"*_{task}*"))):
            raise OutputError(
                f"the data of {task} have changed since {kept} began, and VLMEvalKit would use the old answers in "
                f"{files[0].name}. Move {len(files)} files of {task} out of that folder, or pass another "
                "--work-dir."
            )

    def note_data(self) -> None:
        """Record the fingerprint of the data set, after it is loaded, and of its scoring code."""
        self._run.add_data_sets(_data_fingerprint(self._task), scorer_of(self._task))

    def set_dump_image(self, dump_image_func: Callable[..., Any]) -> None:
        """Called by VLMEvalKit with a method of the data set, before documents with images."""
        super().set_dump_image(dump_image_func)
        self._dataset = getattr(dump_image_func, "__self__", None)

    def use_custom_prompt(self, dataset: str) -> bool:
        """Always true: VLMEvalKit only names the document if the model builds prompts."""
        return True

    def build_prompt(self, line: pd.Series, dataset: Any = None, video_llm: bool = False) -> list[dict[str, Any]]:
        """Build a document's prompt, with the document's name.

        Args:
            line: the document's row.
            dataset: name of an image data set; for videos, VLMEvalKit passes the data set itself.
            video_llm: VLMEvalKit's flag for models that accept video files.
        """
        is_video = not isinstance(dataset, str)
        message = self.film_message_of(line, dataset) if is_video else self.message_of(line, dataset)
        split = line.get("split")
        split = "none" if split is None or pd.isna(split) else split
        return [{**message[0], "document": f"{self._task}/{split}/{line['index']}", "is_video": is_video}, *message[1:]]

    def generate_inner(self, message: Sequence[dict[str, Any]], dataset: str | None = None) -> str:
        """Answer a document, or return its answer from the run's folder.

        Raises:
            UserError: the document, which the message names, can't be answered; also in `failure`.
        """
        try:
            question = "\n".join(str(part["value"]) for part in message if part["type"] == "text")
            return self._answer(self._request(message, dataset), question)
        except UserError as error:
            self.failure = error
            raise

    def chat(self, messages: Any, dataset: str | None = None) -> str:
        """Not supported, and not inherited: VLMEvalKit's own version would return an error message as the answer."""
        self.failure = ConfigError(
            f"{self._task} asks in several rounds; this model answers single-round data sets only."
        )
        raise self.failure

    def _answer(self, request: DeferredRequest, question: str) -> str:
        (key,) = answer_keys([request], [question])
        asking = Asking([request])
        if stored := take_over(self._run, [key], asking, self._engine.preprocessor):
            return stored[0].text
        (answer,) = self._engine.answer(asking.requests)
        self._run.add(key, answer.text, answer.account, asking.made[0], answer.seconds)
        return answer.text

    def _request(self, message: Sequence[dict[str, Any]], dataset: str | None) -> DeferredRequest:
        if "document" not in message[0]:
            raise ConfigError(
                f"VLMEvalKit asks about {self._task} in the data set's own words and without naming its documents, so "
                "their tokens can't be accounted for. Leave this data set out."
            )
        key, is_video = message[0]["document"], message[0]["is_video"]

        def load() -> Request:
            return self.request_of(key, message, is_video=is_video, dataset=dataset)

        return DeferredRequest(key, self._generation, load)


def _data_fingerprint(task: str) -> dict[str, str]:
    """Return the fingerprint of a data set's table, which contains images, under its name; empty if it is missing."""
    table = Path(LMUDataRoot()) / f"{task}.tsv"
    return {task: f"sha256 {file_digest(table)}"} if table.is_file() else {}
