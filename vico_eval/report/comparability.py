"""What runs of one column have in common: what makes them incomparable is an error, what may matter is a note."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from vico_eval.errors import ReportError
from vico_eval.report.benchmarks import Benchmark
from vico_eval.report.records import RunRecord
from vico_eval.report.runs import Document, Run, TaskResult
from vico_eval.report.vlmevalkit import HARNESS

# Of a task's settings, those that make its numbers others.
_DECISIVE = ("generation_kwargs", "generation", "num_fewshot", "judge")


class Asked(NamedTuple):
    """How a run asked a benchmark, against the catalogue."""

    is_other: bool
    """It was started with other arguments, so its score is not the benchmark's."""

    note: str


def asked_otherwise(benchmark: Benchmark, run: Run) -> Asked:
    """Whether a run's model was started with what the catalogue asks for the benchmark, such as frames or thinking."""
    said = {**run.record.method_args, **run.record.settings}
    place = f"{benchmark.title} of {run.folder.name}"
    unknown = []
    for name, wanted in benchmark.model_args.items():
        if name not in said:
            unknown.append(f"{name}={wanted}")
        # Arguments of other programs are text.
        elif str(said[name]).lower() != str(wanted).lower():
            return Asked(
                True,
                f"{place} counts as missing, since it was asked with {name}={said[name]}; expected {name}={wanted}.",
            )
    if unknown:
        return Asked(
            False, f"it can't be checked that {place} was asked with {', '.join(unknown)}: the run doesn't say."
        )
    return Asked(False, "")


def check_repeats(benchmark: Benchmark, answered: Sequence[tuple[str, Run]]) -> None:
    """Runs of one row on one benchmark must be of one checkpoint and method; a seed may differ.

    Raises:
        ReportError: they are not.
    """
    first: dict[str, Run] = {}
    for row, run in answered:
        before = first.setdefault(row, run)
        if _model(before.record) != _model(run.record):
            raise ReportError(
                f"{benchmark.title}: {before.folder} and {run.folder} are both given as `{row}`, and ran another "
                "checkpoint or other arguments of the method. Give one of them another title, or leave it out."
            )


def condition_notes(runs: Sequence[tuple[str, Run]]) -> list[str]:
    """What differs between a benchmark's runs besides the system: it may be part of a difference in scores."""
    notes = [
        f"{row}: only the first {limit} documents of each data set."
        for row, run in runs
        # lmms-eval says how many there are, and the table does.
        if run.record.harness == HARNESS and (limit := run.record.settings.get("limit")) is not None
    ]
    for row, run in runs[1:]:
        first_row, first = runs[0]
        ours, theirs = _conditions(first.record), _conditions(run.record)
        if first.record.made_from is not None or run.record.made_from is not None:
            # Where one of them doesn't say, nobody knows that they differ.
            ours = {key: value for key, value in ours.items() if None not in (value, theirs.get(key))}
        if different := _different(ours, theirs):
            notes.append(f"{row} ran with another {different} than {first_row}.")
    return notes


def comparison_notes(answered: Sequence[tuple[Run, Sequence[TaskResult]]]) -> list[str]:
    """Notes on what differs between runs of one benchmark.

    Raises:
        ReportError: they answered other documents, at another version of the task, or asked them in other ways.
    """
    notes: dict[str, None] = {}
    for run, tasks in answered[1:]:
        first_run, first_tasks = answered[0]
        for first, task in zip(first_tasks, tasks, strict=True):
            place = f"{task.name}: {first_run.folder} and {run.folder}"
            _check_comparable(place, first, task)
            if different := _different(first.settings, task.settings):
                notes[f"{place} differ in the task's {different}."] = None
            for what, fields in (("questions", "question"), ("right answers", "target")):
                if number := _num_different(first.documents, task.documents, fields):
                    notes[f"{place} have other {what} in {number} of {len(task.documents)} documents."] = None
    return list(notes)


def _check_comparable(place: str, first: TaskResult, task: TaskResult) -> None:
    first_ids, ids = ([document.doc_id for document in one.documents] for one in (first, task))
    if first_ids != ids:
        raise ReportError(
            f"{place} answered different documents ({_span(first_ids)} and {_span(ids)}). Rows of one table "
            "need the same documents; repeat one of them with the other's --limit and --offset."
        )
    if "" not in (first.version, task.version) and first.version != task.version:
        raise ReportError(
            f"{place} ran different versions of the task ({first.version} and {task.version}). Rows of one table need "
            "the same; repeat one of them with the other's toolkit, or leave it out."
        )
    for key in _DECISIVE:
        ours, theirs = first.settings.get(key), task.settings.get(key)
        if None not in (ours, theirs) and ours != theirs:
            raise ReportError(
                f"{place} were asked with another {key} ({ours} and {theirs}). Rows of one table need the same; repeat "
                "one of them with the other's, or leave it out."
            )


def _num_different(first: Sequence[Document], documents: Sequence[Document], field: str) -> int:
    pairs = ((getattr(one, field), getattr(other, field)) for one, other in zip(first, documents, strict=True))
    return sum(ours != theirs for ours, theirs in pairs)


def _model(record: RunRecord) -> tuple[object, ...]:
    arguments = {name: value for name, value in record.method_args.items() if name != "seed"}
    # Without a digest or a name that we gave, only the whole path tells two checkpoints apart.
    name = record.checkpoint.name if record.made_from is None else record.checkpoint.path
    return record.checkpoint.sha256 or name, record.donor, record.method, arguments


def _conditions(record: RunRecord) -> dict[str, Any]:
    settings = {f"settings.{key}": value for key, value in record.settings.items() if key != "batch_size"}
    versions = {f"version of {key}": value for key, value in record.versions.items()}
    return {"dtype": record.dtype, "attention": record.attention, "harness": record.harness} | settings | versions


def _different(first: Mapping[str, Any], second: Mapping[str, Any]) -> str:
    return ", ".join(key for key in first if first[key] != second.get(key) and key not in _DECISIVE)


def _span(doc_ids: Sequence[int | str]) -> str:
    return f"{len(doc_ids)}: {doc_ids[0]} to {doc_ids[-1]}"
