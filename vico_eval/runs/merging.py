"""Check that the journals of a run's shards together answer every document exactly once."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from vico_eval.errors import ReportError, listed
from vico_eval.runs.folders import ANSWERS, journal_files
from vico_eval.runs.json_text import read_lines
from vico_eval.runs.schema import AnswerKey, StoredAnswer
from vico_eval.runs.shards import Shard, ShardTask

_NAMED = 10

Done = Mapping[Shard, Mapping[str, ShardTask]]
"""Finished tasks by shard, as `read_shards` returns them."""


def missing_shards(done: Done, tasks: Sequence[str], of: int) -> list[Shard]:
    """The shards, out of `of`, that have not finished all of `tasks`."""
    shards = (Shard(number, of) for number in range(1, of + 1))
    return [shard for shard in shards if not done.get(shard, {}).keys() >= set(tasks)]


def complete_number(done: Done, tasks: Sequence[str]) -> int | None:
    """The number of shards in a split whose shards have all finished `tasks`; None if no split is complete.

    Some documents may have failed; the scores report them.
    """
    numbers = sorted({shard.of for shard in done})
    return next((of for of in numbers if not missing_shards(done, tasks, of)), None)


def check_merged(folder: Path, done: Done, tasks: Sequence[str], of: int) -> None:
    """Check that the journals in `folder` answer every document of `tasks`, which all `of` shards have finished.

    A shard may lack as many answers as it has recorded failures.

    Raises:
        ReportError: more answers are missing, or two files answer the same question about a document.
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
    shards = [Shard(number, of) for number in range(1, of + 1)]
    for task in tasks:
        if lost := _lost(answered.get(task, set()), {shard: done[shard][task] for shard in shards}):
            raise ReportError(
                f"the journals in {folder} have no answer to document(s) {listed(lost, _NAMED)} of {task}, although "
                f"all {of} shards have finished. Repeat the command without --shard to ask them again."
            )
    if twice := {key[0]: names for key, names in places.items() if len(names) > 1}:
        document, names = next(iter(twice.items()))
        raise ReportError(
            f"{len(twice)} document(s) in {folder} are answered in two journals. The first is {document}, in "
            f"{' and '.join(names)}. Two shards answered it; move one of these files away and repeat the command."
        )


def _answers(path: Path) -> Iterator[StoredAnswer]:
    """Yield a journal's answers, without lines that were cut off when a shard was stopped."""
    for _, text in read_lines(path):
        try:
            yield StoredAnswer.model_validate_json(text)
        except ValidationError:
            continue


def _lost(answered: Container[int | str], noted: Mapping[Shard, ShardTask]) -> list[str]:
    """The task's unanswered documents, of the shards with more of them than recorded failures."""
    documents = range(sum(one.documents for one in noted.values()))
    lost = []
    for shard, one in noted.items():
        missing = [document for document in documents if shard.has(document) and document not in answered]
        lost += missing if len(missing) > one.failed else []
    return [str(document) for document in sorted(lost)]
