"""Check that the runs in a column are comparable. Decisive differences are errors, others become notes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vico_eval.errors import ReportError
from vico_eval.report.scores.benchmarks import Benchmark
from vico_eval.report.scores.counted import CountedDocuments, CountedRun, CountedTask
from vico_eval.runs.schema import LMMS_EVAL, VLMEVALKIT, RunRecord

# Task settings that change the scores.
_DECISIVE = ("generation_kwargs", "generation", "num_fewshot", "judge")

_MAY_DIFFER = frozenset(
    {
        *("seed", "random_seed", "numpy_seed", "torch_seed", "fewshot_seed"),
        *("batch_size", "max_batch_size", "device", "device_map", "record_dir", "previews"),
    }
)
"""Settings and arguments in which runs of one row may differ: seeds, which are averaged over, and device and batch
settings, which should not affect answers. The number of processes, times, command and folders may differ too, and
differing library versions are noted. Any other difference requires a separate row."""

_FEW = 0.05
"""Largest share of documents whose questions may differ between two runs, for instance after corrections to a data set.
Above it, the rows answered different questions and can't be compared. No reference answer may differ, because the same
reply would be right in one row and wrong in the other."""


def check_harness(benchmark: Benchmark, runs: Sequence[CountedRun]) -> None:
    """Check that all runs of a benchmark are from one toolkit, since prompts and scorers differ between toolkits.

    Raises:
        ReportError: the runs are from different toolkits.
    """
    found = {run.record.harness: run.row for run in runs}
    if len(found) > 1:
        raise ReportError(
            f"{benchmark.title} was run by {' and by '.join(f'{harness} ({row})' for harness, row in found.items())}, "
            "whose prompts and scoring differ. The rows of a column need one toolkit; leave the other's runs out."
        )


def check_repeats(benchmark: Benchmark, runs: Sequence[CountedRun]) -> None:
    """Check that several runs of one row are distinct, and differ only in `_MAY_DIFFER`.

    Raises:
        ReportError: runs differ in other conditions, or one is a copy of another.
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
    # A setting in only one of the records was introduced after the other run.
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
            f"{what} have the same answers and the same record, including the start time, so one is a copy. Leave one "
            "of them out."
        )


def _are_the_same(first: CountedDocuments | None, second: CountedDocuments | None) -> bool:
    return first is not None and second is not None and np.array_equal(first.answers, second.answers)


def condition_notes(runs: Sequence[CountedRun]) -> list[str]:
    """Notes on differences between a benchmark's runs other than the system, which may contribute to score
    differences."""
    notes = [
        f"{run.row}: only the first {limit} documents of each data set."
        for run in runs
        # lmms-eval reports the number of documents, so the table shows it.
        if run.record.harness == VLMEVALKIT and (limit := run.record.settings.get("limit")) is not None
    ]
    for run in runs[1:]:
        first = runs[0]
        ours, theirs = _conditions(first.record), _conditions(run.record)
        if first.record.made_from is not None or run.record.made_from is not None:
            # A value missing in one record is not a known difference.
            ours = {key: value for key, value in ours.items() if None not in (value, theirs.get(key))}
        if different := _different(ours, theirs):
            notes.append(f"{run.row} was run with another {different} than {first.row}.")
    return notes


def comparison_notes(answered: Sequence[tuple[CountedRun, Sequence[CountedTask]]]) -> list[str]:
    """Notes on differences between runs of one benchmark.

    Raises:
        ReportError: the runs have different documents, task versions, decisive settings, questions, reference answers
            or scoring code.
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
                    difference = f"{place} have different {what} in {number} of {len(theirs)} documents."
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
                f"{place} were run with another {key} ({ours} and {theirs}). Rows of one table need the same; repeat "
                "one of them with the other's, or leave it out."
            )


def _check_scorers(place: str, task: str, first: RunRecord, second: RunRecord) -> None:
    """Raise ReportError if two runs are known to have been scored by different code."""
    ours, theirs = (record.scorers.get(task) for record in (first, second))
    if None in (ours, theirs) or ours == theirs:
        return
    toolkit = "lmms_eval" if first.harness == LMMS_EVAL else "ms_vlmeval"
    versions = " and ".join(str(record.versions.get(toolkit)) for record in (first, second))
    raise ReportError(
        f"{place} were scored by different code ({ours} and {theirs}; {toolkit.replace('_', '-')} {versions}). Rows of "
        "one table need the same; repeat one of them with the other's toolkit and task files, which reuses its answers "
        "if nothing else has changed, or leave it out."
    )


def _other_data(task: str, first: RunRecord, second: RunRecord) -> str:
    """Note that runs used different data, or empty. Images may differ even if texts and reference answers don't."""
    ours, theirs = (record.data_sets.get(task, "") for record in (first, second))
    # Data created in memory have a different name in each process.
    if ours == theirs or not all(known.startswith(("revision ", "sha256 ")) for known in (ours, theirs)):
        return ""
    return f"used different data for the task ({ours} and {theirs})."


def _other_stop_strings(task: str, first: RunRecord, second: RunRecord) -> str:
    """Note that our runs ignored different stop strings of a task, or empty; other programs' runs don't record them."""
    ours, theirs = (record.left_out_until.get(task, ()) for record in (first, second))
    if ours == theirs or first.made_from is not None or second.made_from is not None:
        return ""
    named = " and ".join(", ".join(map(repr, until)) or "none" for until in (ours, theirs))
    return f"ignored different stop strings of the task ({named})."


def _model(record: RunRecord) -> dict[str, object]:
    arguments = {name: value for name, value in record.method_args.items() if name not in _MAY_DIFFER}
    # Without a digest or a name assigned by us, only the full path distinguishes two checkpoints.
    name = record.checkpoint.name if record.made_from is None else record.checkpoint.path
    donor = record.donor and (record.donor.sha256 or record.donor.name)
    return {"checkpoint": record.checkpoint.sha256 or name, "donor": donor, "method": record.method} | arguments


def _asked(record: RunRecord) -> dict[str, object]:
    """Settings of inference."""
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
