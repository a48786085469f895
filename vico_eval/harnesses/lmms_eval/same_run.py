"""A check that lmms-eval's results belong to the record beside them: model, arguments, checkpoint and folder.

lmms-eval writes results to `--output_path`, our models write their record to `record_dir`. If two commands have each
other's `--output_path`, a folder contains one run's record and the other's results.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vico_eval.errors import ReportError
from vico_eval.harnesses.lmms_eval.kinds import COMBINED, split_model
from vico_eval.harnesses.lmms_eval.results_files import model_arguments
from vico_eval.runs.schema import RECORD_NAME, Checkpoint, RunRecord

_CHANGES_NO_ANSWER = frozenset(
    {
        "allow_pickle",
        "batch_size",
        "max_batch_size",
        "device",
        "device_map",
        "server",
        "tensor_parallel_size",
        "gpu_memory_utilization",
        "max_model_len",
        "gpus_per_process",
        "previews",
        "resume",
        "keep_going",
        "shared_pass",
    }
)
"""Model arguments that may differ between the commands of a resumed run."""

_HIDDEN = ("***", "[REDACTED]")
"""Replaces secrets in our records and in lmms-eval's results."""


class _Difference(NamedTuple):
    """A difference between results and record."""

    name: str
    found: object
    expected: object


def check_model(folder: Path, record: RunRecord, path: Path, content: Mapping[str, Any]) -> None:
    """Reject results of another model, checkpoint, method or folder than the record's.

    They are compared with the record's fields and, if there is one, its command line.

    Args:
        folder: the run's folder.
        record: the record in it.
        path: the results file.
        content: the file's content.

    Raises:
        ReportError: they differ; the message gives the differences.
    """
    model, arguments = str(content["config"].get("model")), model_arguments(content["config"].get("model_args"))
    found = {
        one.name: one
        for one in (*_unlike_record(record, model, arguments), *_unlike_command(record.command, model, arguments))
    }
    instruction = content.get("system_instruction") or None
    if instruction != record.system_instruction:
        # A task may not show it to the model, and then it has no effect.
        found["system_instruction"] = _Difference("system_instruction", instruction, record.system_instruction)
    if not found:
        return
    words = "; ".join(f"{one.name} is {one.found}, expected {one.expected}" for one in found.values())
    raise ReportError(
        f"{path} is not of the run that {folder / RECORD_NAME} describes: {words}. Two commands may have had each "
        "other's --output_path. Move the results with their samples to the record they belong to, or repeat the run "
        "with one folder for record_dir and --output_path."
    )


def option(command: Sequence[str], name: str) -> str | None:
    """Return the value of a command-line option, given as `--name value` or `--name=value`."""
    for place, word in enumerate(command):
        if word == name and place + 1 < len(command):
            return command[place + 1]
        if word.startswith(f"{name}="):
            return word.removeprefix(f"{name}=")
    return None


def _unlike_command(command: Sequence[str], model: str, arguments: Mapping[str, Any]) -> Iterator[_Difference]:
    said = option(command, "--model")
    if said is not None and said != model:
        yield _Difference("model", model, said)
    given = option(command, "--model_args")
    if given is None:
        return
    expected = model_arguments(given)
    for name in sorted({**expected, **arguments}.keys() - _CHANGES_NO_ANSWER):
        if not _same(arguments.get(name), expected.get(name)):
            yield _Difference(name, arguments.get(name, "not given"), expected.get(name, "not given"))


def _unlike_record(record: RunRecord, model: str, arguments: Mapping[str, Any]) -> Iterator[_Difference]:
    named = split_model(model)
    method = None if named is None else named[0]
    if method == COMBINED:
        method = arguments.get("method", "vanilla")
    if method is not None and not _same(method, record.method):
        yield _Difference("method", method, record.method)
    known = {**record.settings, **record.method_args, "attn_implementation": record.attention}
    if arguments.get("dtype") != "auto":
        known["dtype"] = record.dtype
    for name in sorted((arguments.keys() & known.keys()) - _CHANGES_NO_ANSWER):
        if not _same(arguments[name], known[name]):
            yield _Difference(name, arguments[name], known[name])
    for name, checkpoint in (("pretrained", record.checkpoint), ("flash_from", record.donor)):
        if name in arguments and not _is(arguments[name], checkpoint):
            yield _Difference(name, arguments[name], "none" if checkpoint is None else checkpoint.name)


def _is(given: object, checkpoint: Checkpoint | None) -> bool:
    return checkpoint is not None and any(_same(given, said) for said in (checkpoint.name, checkpoint.path))


def _same(first: object, second: object) -> bool:
    """Return whether two arguments mean the same; one may be text, and a path may be relative to a working
    directory."""
    ours, theirs = _plain(first), _plain(second)
    if ours == theirs or any(word in text for word in _HIDDEN for text in (str(ours), str(theirs))):
        return True
    if not (isinstance(ours, str) and isinstance(theirs, str)):
        return False
    return any(whole.startswith("/") and whole.endswith(f"/{part}") for whole, part in ((ours, theirs), (theirs, ours)))


def _plain(value: object) -> object:
    """Return a number if possible, otherwise text, with paths normalised."""
    text = str(value).strip()
    if text.lower() in ("true", "false", "none"):
        return text.lower()
    try:
        return float(text)
    except ValueError:
        return text.removeprefix("./").rstrip("/")
