"""A pass: rows of the same weights that one process of lmms-eval answers in lockstep and then scores one by one.

Its file is what lmms-eval's `--config` takes, a list of evaluations; `run_pass` is the program that runs it. The model
of the first one answers every document for all rows and writes their journals; those after it find their answers there
and read no weights. What this process has asked is remembered, so that no picture is read again only to see that it is
still the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from lmms_eval.utils import simple_parse_args_string
from pydantic import Field, TypeAdapter, ValidationError

from vico_eval.errors import BAD_INPUT, ConfigError, UserError
from vico_eval.runs.schema import AnswerKey
from vico_eval.schemas import Closed

MAX_BYTES = 2**22
"""Of a pass's file; a row takes about a kilobyte."""

NOT_OPENED: tuple[type[Exception], ...] = (UserError, *BAD_INPUT)
"""What a row can raise when it is opened; the others go on."""

IN_A_PASS = ("shared_pass", "shard", "previews")
"""Arguments of a row's model that its own command does not have, and that change no answer."""


class PassRow(Closed):
    """One evaluation of a pass, in lmms-eval's words: what its command line takes."""

    model: str = Field(min_length=1)
    model_args: str
    tasks: str = Field(min_length=1)
    """Names joined by commas."""

    include_path: str | None = None
    output_path: str
    log_samples: bool = False
    batch_size: int | str = 1
    device: str | None = None
    limit: float | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """The model's, as lmms-eval hands them over."""
        return {**self._own_arguments, "batch_size": self.batch_size, "device": self.device}

    @property
    def _own_arguments(self) -> dict[str, Any]:
        arguments: dict[str, Any] = simple_parse_args_string(self.model_args)
        return arguments

    @property
    def folder(self) -> Path:
        """Of the run.

        Raises:
            ConfigError: it names none.
        """
        folder = self.arguments.get("record_dir")
        if not folder:
            raise ConfigError(f"a row of a pass has model_args {self.model_args!r}; expected record_dir=FOLDER in it.")
        return Path(str(folder))

    @property
    def command(self) -> tuple[str, ...]:
        """By which the row is repeated alone."""
        words = ["python", "-m", "lmms_eval"]
        alone = {name: value for name, value in self._own_arguments.items() if name not in IN_A_PASS}
        for name, value in self.model_dump(exclude_none=True).items():
            if name == "model_args":
                words += ["--model_args", ",".join(f"{key}={given}" for key, given in alone.items())]
            elif isinstance(value, bool):
                words += [f"--{name}"] if value else []
            else:
                words += [f"--{name}", str(int(value) if isinstance(value, float) and value.is_integer() else value)]
        return tuple(words)


_ROWS = TypeAdapter(Annotated[list[PassRow], Field(min_length=1)])


def read_pass(path: Path) -> list[PassRow]:
    """The rows of a pass.

    Raises:
        ConfigError: there is no such file, or it is no pass.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"shared_pass={path} is larger than {MAX_BYTES} bytes; expected the file of a pass.")
        return _ROWS.validate_python(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (ValidationError, yaml.YAMLError, *BAD_INPUT) as error:
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(
            f"shared_pass={path} can't be read: {reason}. Expected a list of evaluations as lmms-eval's --config takes "
            "it, each with model and model_args."
        ) from error


_asked: dict[Path, dict[AnswerKey, str | None]] = {}


def remember_asked(folder: Path, outcomes: Mapping[AnswerKey, str | None]) -> None:
    """Note what this process has asked for the run in `folder`: None where it was answered, else why it was not."""
    _asked.setdefault(folder.resolve(), {}).update(outcomes)


def asked_here(folder: Path) -> Mapping[AnswerKey, str | None] | None:
    """What this process has asked for the run in `folder`, as `remember_asked`; None where it has not."""
    return _asked.get(folder.resolve())
