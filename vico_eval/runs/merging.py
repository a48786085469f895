"""Whether the journals of all shards of a run together answer every document, and each once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from vico_eval.errors import ReportError, listed
from vico_eval.runs.folders import ANSWERS, journal_files
from vico_eval.runs.json_text import read_lines
from vico_eval.runs.schema import AnswerKey, StoredAnswer
from vico_eval.runs.shards import Shard, ShardTask

_NAMED = 10

Done = Mapping[Shard, Mapping[str, ShardTask]]
"""What shards have asked, as `read_shards` has it."""


def missing_shards(done: Done, tasks: Sequence[str], of: int) -> list[Shard]:
    """Those of `of` shards that have not answered all their documents of some tasks."""
    return [shard for number in range(1, of + 1) if not _is_done(done.get(shard := Shard(number, of)), tasks)]


def complete_number(done: Done, tasks: Sequence[str]) -> int | None:
    """Into how many shards the documents of tasks were parted that all are answered; None where none are complete."""
    numbers = sorted({shard.of for shard in done})
    return next((of for of in numbers if not missing_shards(done, tasks, of)), None)


def check_merged(folder: Path, done: Done, tasks: Sequence[str], of: int) -> None:
    """See that the journals in `folder` have an answer to every document of tasks that all `of` shards have asked.

    Raises:
        ReportError: documents are missing, or one was answered to the same question in two files.
    """
    places: dict[AnswerKey, list[str]] = {}
    answered: dict[str, set[int | str]] = {}
    for path in journal_files(folder, ANSWERS):
        keys = {}
        for answer in _answers(path):
            keys[answer.key] = path.name
            answered.setdefault(answer.task, set()).add(answer.doc_id)
        for key, name in keys.items():
            places.setdefault(key, []).append(name)
    for task in tasks:
        number = sum(done[Shard(place, of)][task].documents for place in range(1, of + 1))
        if lost := [str(one) for one in range(number) if one not in answered.get(task, set())]:
            raise ReportError(
                f"the journals in {folder} have no answer to document(s) {listed(lost, _NAMED)} of {task}, although "
                f"all {of} shards have asked theirs. The same command without --shard asks them again."
            )
    if twice := {key[0]: names for key, names in places.items() if len(names) > 1}:
        document, names = next(iter(twice.items()))
        raise ReportError(
            f"{len(twice)} document(s) in {folder} are answered in two journals. The first is {document}, in "
            f"{' and '.join(names)}: two shards had it at once. Move one of these files away and repeat the command."
        )


def _answers(path: Path) -> Iterator[StoredAnswer]:
    """The lines of a journal; one that was cut off when a shard was stopped is none."""
    for _, text in read_lines(path):
        try:
            yield StoredAnswer.model_validate_json(text)
        except ValidationError:
            continue


def _is_done(found: Mapping[str, ShardTask] | None, tasks: Sequence[str]) -> bool:
    return found is not None and all(task in found and not found[task].failed for task in tasks)
