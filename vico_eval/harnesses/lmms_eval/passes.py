"""A pass: rows with the same weights that one lmms-eval process answers in lockstep and then scores one by one.

Its file is a list of evaluations in the format of lmms-eval's `--config`; `run_pass` is the program that runs it. The
first row's model answers every document for all rows and writes their journals. The other rows find their answers there
and load no weights. What this process has asked is remembered, so that images aren't read again just to compare them.
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
"""Maximum size of a pass's file; a row takes about a kilobyte."""

NOT_OPENED: tuple[type[Exception], ...] = (UserError, *BAD_INPUT)
"""Errors when a row is opened, which don't stop the other rows."""

IN_A_PASS = ("shared_pass", "shard", "previews")
"""Arguments of a row's model that are missing in its own command because they don't change answers."""


class PassRow(Closed):
    """One evaluation of a pass, as options of lmms-eval's command line."""

    model: str = Field(min_length=1)
    model_args: str
    tasks: str = Field(min_length=1)
    """Names, joined by commas."""

    include_path: str | None = None
    output_path: str
    log_samples: bool = False
    batch_size: int | str = 1
    device: str | None = None
    limit: float | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """The model's arguments, as lmms-eval passes them."""
        return {**self._own_arguments, "batch_size": self.batch_size, "device": self.device}

    @property
    def _own_arguments(self) -> dict[str, Any]:
        arguments: dict[str, Any] = simple_parse_args_string(self.model_args)
        return arguments

    @property
    def folder(self) -> Path:
        """The run's folder.

        Raises:
            ConfigError: the arguments name no folder.
        """
        folder = self.arguments.get("record_dir")
        if not folder:
            raise ConfigError(f"a row of a pass has model_args {self.model_args!r}; expected record_dir=FOLDER in it.")
        return Path(str(folder))

    @property
    def command(self) -> tuple[str, ...]:
        """The command that runs this row alone."""
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
    """Read the rows of a pass.

    Raises:
        ConfigError: the file is missing or isn't a pass.
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
    """Remember what this process asked for the run in `folder`: None if answered, otherwise why not."""
    _asked.setdefault(folder.resolve(), {}).update(outcomes)


def asked_here(folder: Path) -> Mapping[AnswerKey, str | None] | None:
    """Return what this process asked for the run in `folder` (see `remember_asked`); None if nothing."""
    return _asked.get(folder.resolve())
