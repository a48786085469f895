"""What runs of one column have in common: what makes them incomparable is an error, what may matter is a note."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vico_eval.errors import ReportError
from vico_eval.report.scores.benchmarks import Benchmark
from vico_eval.report.scores.counted import CountedDocuments, CountedRun, CountedTask
from vico_eval.runs.schema import LMMS_EVAL, VLMEVALKIT, RunRecord

# Of a task's settings, those that make its numbers others.
_DECISIVE = ("generation_kwargs", "generation", "num_fewshot", "judge")

_MAY_DIFFER = frozenset(
    {
        *("seed", "random_seed", "numpy_seed", "torch_seed", "fewshot_seed"),
        *("batch_size", "max_batch_size", "device", "device_map", "record_dir", "previews"),
    }
)
"""Settings and arguments in which runs of one row may differ: seeds, over which their mean is, and what says where and
how many documents are answered together, which is meant to change no answer. So may the number of processes, the times,
the command and the folders of a run; versions of libraries are noted. All else makes another row."""

_FEW = 0.05
"""Share of documents whose questions may be worded otherwise in two runs, as where a data set's mistakes were mended.
With more of them the rows were asked other things, and their difference is of nothing. A right answer may not differ in
any: the same reply would be right in one row and wrong in the other."""


def check_harness(benchmark: Benchmark, runs: Sequence[CountedRun]) -> None:
    """Runs of one benchmark must be by one toolkit: prompts and scorers differ between them.

    Raises:
        ReportError: they are not.
    """
    found = {run.record.harness: run.row for run in runs}
    if len(found) > 1:
        raise ReportError(
            f"{benchmark.title} was run by {' and by '.join(f'{harness} ({row})' for harness, row in found.items())}, "
            "which ask and score in different ways. The rows of a column need one toolkit; leave the other's runs out."
        )


def check_repeats(benchmark: Benchmark, runs: Sequence[CountedRun]) -> None:
    """Runs of one row on one benchmark must be two runs, under conditions that differ in no more than `_MAY_DIFFER`.

    Raises:
        ReportError: they are not.
    """
    earlier: dict[str, list[CountedRun]] = {}
    for run in runs:
        before = earlier.setdefault(run.row, [])
        for other in before:
            _check_repeat(benchmark, other, run)
        before.append(run)


def _check_repeat(benchmark: Benchmark, first: CountedRun, second: CountedRun) -> None:
    what = f"{benchmark.title}: {first.folder} and {second.folder}"
    ours, theirs = _model(first.record), _model(second.record)
    asked, asked_theirs = _asked(first.record), _asked(second.record)
    # A setting that only one of them has is new since the other was run.
    for name in [name for name in asked if name in asked_theirs]:
        ours[name], theirs[name] = asked[name], asked_theirs[name]
    if different := [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]:
        values = "; ".join(f"{name} {ours.get(name)!s} and {theirs.get(name)!s}" for name in different)
        raise ReportError(
            f"{what} are both given as `{first.row}`, but differ in {values}. Give one of them another title, or leave "
            "it out."
        )
    answers = [run.benchmarks[benchmark.title].documents for run in (first, second)]
    if second.record.made_from is None and first.record == second.record and _are_the_same(*answers):
        raise ReportError(
            f"{what} have the same answers, and the same record to the second they began, so one is a copy and "
            f"`{first.row}` has no second run. Leave one of them out."
        )


def _are_the_same(first: CountedDocuments | None, second: CountedDocuments | None) -> bool:
    return first is not None and second is not None and np.array_equal(first.answers, second.answers)


def condition_notes(runs: Sequence[CountedRun]) -> list[str]:
    """What differs between a benchmark's runs besides the system: it may be part of a difference in scores."""
    notes = [
        f"{run.row}: only the first {limit} documents of each data set."
        for run in runs
        # lmms-eval says how many there are, and the table does.
        if run.record.harness == VLMEVALKIT and (limit := run.record.settings.get("limit")) is not None
    ]
    for run in runs[1:]:
        first = runs[0]
        ours, theirs = _conditions(first.record), _conditions(run.record)
        if first.record.made_from is not None or run.record.made_from is not None:
            # Where one of them doesn't say, nobody knows that they differ.
            ours = {key: value for key, value in ours.items() if None not in (value, theirs.get(key))}
        if different := _different(ours, theirs):
            notes.append(f"{run.row} ran with another {different} than {first.row}.")
    return notes


def comparison_notes(answered: Sequence[tuple[CountedRun, Sequence[CountedTask]]]) -> list[str]:
    """Notes on what differs between runs of one benchmark.

    Raises:
        ReportError: they answered other documents, at another version of the task, asked them in other ways, or were
            scored by other code.
    """
    notes: dict[str, None] = {}
    for run, tasks in answered[1:]:
        first_run, first_tasks = answered[0]
        for first, task in zip(first_tasks, tasks, strict=True):
            place = f"{task.name}: {first_run.folder} and {run.folder}"
            _check_comparable(place, first, task)
            _check_scorers(place, task.name, first_run.record, run.record)
            if different := _different(first.settings, task.settings):
                notes[f"{place} differ in the task's {different}."] = None
            if note := _other_data(task.name, first_run.record, run.record):
                notes[f"{place} {note}"] = None
            if note := _other_stop_strings(task.name, first_run.record, run.record):
                notes[f"{place} {note}"] = None
            pairs = {
                "questions": (first.questions, task.questions, _FEW),
                "right answers": (first.targets, task.targets, 0),
            }
            for what, (ours, theirs, allowed) in pairs.items():
                if number := np.count_nonzero(ours != theirs):
                    difference = f"{place} have other {what} in {number} of {len(theirs)} documents."
                    if number > allowed * len(theirs):
                        raise ReportError(
                            f"{difference} Rows of one table need the same; repeat one of them with the other's data "
                            "and task files, or leave it out."
                        )
                    notes[difference] = None
    return list(notes)


def _check_comparable(place: str, first: CountedTask, task: CountedTask) -> None:
    if first.doc_ids != task.doc_ids:
        raise ReportError(
            f"{place} answered different documents ({_span(first.doc_ids)} and {_span(task.doc_ids)}). Rows of one "
            "table need the same documents; repeat one of them with the other's --limit and --offset."
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


def _check_scorers(place: str, task: str, first: RunRecord, second: RunRecord) -> None:
    """Raises ReportError where two runs are known to have been scored by other code."""
    ours, theirs = (record.scorers.get(task) for record in (first, second))
    if None in (ours, theirs) or ours == theirs:
        return
    toolkit = "lmms_eval" if first.harness == LMMS_EVAL else "ms_vlmeval"
    versions = " and ".join(str(record.versions.get(toolkit)) for record in (first, second))
    raise ReportError(
        f"{place} were scored by different code ({ours} and {theirs}; {toolkit.replace('_', '-')} {versions}). Rows of "
        "one table need the same; repeat one of them with the other's toolkit and task files, which keeps the answers "
        "that are there where nothing else has changed, or leave it out."
    )


def _other_data(task: str, first: RunRecord, second: RunRecord) -> str:
    """Whether runs read other data of a task, in words: pictures may differ where words and right answers do not."""
    ours, theirs = (record.data_sets.get(task, "") for record in (first, second))
    # Data that were made in memory have a name of their own in each process.
    if ours == theirs or not all(known.startswith(("revision ", "sha256 ")) for known in (ours, theirs)):
        return ""
    return f"read other data of the task ({ours} and {theirs})."


def _other_stop_strings(task: str, first: RunRecord, second: RunRecord) -> str:
    """Whether runs of ours left out other stop strings of a task, in words; runs of others don't say."""
    ours, theirs = (record.left_out_until.get(task, ()) for record in (first, second))
    if ours == theirs or first.made_from is not None or second.made_from is not None:
        return ""
    named = " and ".join(", ".join(map(repr, until)) or "none" for until in (ours, theirs))
    return f"left out other stop strings of the task ({named})."


def _model(record: RunRecord) -> dict[str, object]:
    arguments = {name: value for name, value in record.method_args.items() if name not in _MAY_DIFFER}
    # Without a digest or a name that we gave, only the whole path tells two checkpoints apart.
    name = record.checkpoint.name if record.made_from is None else record.checkpoint.path
    donor = record.donor and (record.donor.sha256 or record.donor.name)
    return {"checkpoint": record.checkpoint.sha256 or name, "donor": donor, "method": record.method} | arguments


def _asked(record: RunRecord) -> dict[str, object]:
    """How the model was asked and computed."""
    settings = {f"settings.{name}": value for name, value in record.all_settings.items() if name not in _MAY_DIFFER}
    return {"dtype": record.dtype, "attention": record.attention} | settings


def _conditions(record: RunRecord) -> dict[str, Any]:
    settings = {f"settings.{key}": value for key, value in record.all_settings.items() if key != "batch_size"}
    versions = {f"version of {key}": value for key, value in record.versions.items()}
    own = {name: getattr(record, name) for name in ("dtype", "attention", "harness", "system_instruction")}
    return own | settings | versions


def _different(first: Mapping[str, Any], second: Mapping[str, Any]) -> str:
    return ", ".join(key for key in first if first[key] != second.get(key) and key not in _DECISIVE)


def _span(doc_ids: Sequence[int | str]) -> str:
    return f"{len(doc_ids)}: {doc_ids[0]} to {doc_ids[-1]}"
