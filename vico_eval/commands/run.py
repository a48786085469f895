"""`vico-eval run`: the rows and benchmarks of a suite through lmms-eval, then the table and its picture."""

from __future__ import annotations

import fcntl
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from vico_eval import paths
from vico_eval.cards import find_checkpoints, load_cards, select_cards
from vico_eval.commands.checks import check_device, check_folders, check_models
from vico_eval.commands.dry_run import in_passes, show_plan
from vico_eval.commands.execute import Launch, execute
from vico_eval.commands.failures import Failure, describe
from vico_eval.commands.inputs import Inputs, find_inputs, local_checkpoints
from vico_eval.commands.output import check_writable, message_console
from vico_eval.commands.passes import Pass, at_once, plan_passes
from vico_eval.commands.plan import Cell, Conditions, ModelArgs, PlannedRun, plan_runs
from vico_eval.commands.progress import LiveProgress, PlainProgress
from vico_eval.commands.report import print_report
from vico_eval.commands.run_folders import DocumentsFailed, problems_of, unfinished
from vico_eval.commands.starting import environment_of, num_cores, starting
from vico_eval.commands.task_data import local_data, own_data
from vico_eval.errors import ConfigError, ReportError, UserError, unknown_name
from vico_eval.report import write_report
from vico_eval.report.page.folder import check_page_folder
from vico_eval.runs.read import read_run
from vico_eval.suites import Benchmark, Suite, load_benchmarks, load_suite

RESERVED = frozenset(
    (
        *("pretrained", "flash_from", "ratio_from", "decisions_from", "seed", "method", "variant"),
        *("record_dir", "resume", "keep_going", "shared_pass"),
    )
)
"""Arguments of a model that tell rows and runs apart."""

OPTIONS = {"batch_size": "--batch-size", "device": "--device"}
"""Arguments of a model that are options of the command; lmms-eval passes them beside the others."""

TARGET = "target_ratio"
"""Argument of the models of those rows alone that would take their ratio from another row."""

REHEARSED_SHARE = 0.5
"""Of visual tokens: what every method can leave in the four layers of the built-in checkpoints."""

SMALL_BATCH, LARGE_BATCH = 8, 32
"""Documents at once: of a real checkpoint, and of a built-in one."""

FIXTURES_NOTE = "On small local data sets in the benchmarks' schemas: a rehearsal, no measurement."


class CellsFailed(UserError):
    """Cells of a table have no result, or documents without an answer; says how to repeat each."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What a user may choose of a suite's runs."""

    rows: Sequence[str] = ()
    """Names of systems; empty for the suite's own, `all` for every card of its family."""

    benchmarks: Sequence[str] = ()
    """Names in the catalogue; empty for all of the suite."""

    checkpoint: str | None = None
    """A size of checkpoints.yaml, a checkpoint for all rows, or `base=...,vico=...`; None for the suite's own."""

    limit: int | None = None
    """First documents of each task; None for all."""

    fixtures: bool = False
    """Whether small local data sets take the place of the benchmarks' own."""

    judge: bool = False
    """Whether benchmarks that call another model to judge answers are run."""

    num_seeds: int = 1
    """Draws of each row that has chance in it."""

    num_processes: int = 1
    """Processes that share a row's documents, one a GPU."""

    jobs: int | None = None
    """Rows, or passes of several, at once; None for one on a GPU, and on a CPU for one a core, at most four."""

    batch_size: int | None = None
    """Documents at once; None for 8, or 32 with a built-in checkpoint."""

    device: str | None = None
    """Of the models; None for a GPU where there is one."""

    model_args: ModelArgs = field(default_factory=dict)
    """For every row's model; wins over its own."""

    out: Path | None = None
    """Folder of the table; None for one beside the runs."""

    html: Path | None = None
    """Folder of the page; None for one beside the runs."""

    page: bool = True
    """Whether there is a page."""

    fresh: bool = False
    """Whether finished cells are repeated."""

    shared_pass: bool = True
    """Whether rows of the same weights are answered together."""


def run_suite(name: str, options: RunOptions, *, dry_run: bool = False) -> None:
    """Fill a suite's table: run what is not finished and write the table, or only show what would be run.

    Raises:
        UserError: bad input; or, after everything else has been done, cells that failed.
    """
    started = time.monotonic()
    console = message_console()
    if reserved := RESERVED & options.model_args.keys():
        raise ConfigError(
            f"--model-args has {', '.join(sorted(reserved))}, which each row's command sets itself; leave it out."
        )
    for name in OPTIONS.keys() & options.model_args.keys():
        raise ConfigError(f"--model-args has {name}; give it as {OPTIONS[name]} {options.model_args[name]}.")
    suite = load_suite(name)
    cards = load_cards(paths.models_dir(), suite.cards)
    checkpoints = find_checkpoints(options.checkpoint, suite, is_small=options.fixtures)
    benchmarks = choose_benchmarks(suite, options, console)
    rows = () if tuple(options.rows) == ("all",) else options.rows or suite.rows
    select_cards(cards, rows)
    model_args = _model_args(suite, options)
    device = _default_device() if options.device is None else options.device
    runs_root = _runs_root(suite, options)
    out = runs_root / "report" if options.out is None else options.out
    html = (runs_root / "report" / "page" if options.html is None else options.html) if options.page else None
    data = local_data(runs_root / "data", benchmarks) if options.fixtures else own_data()
    conditions = Conditions(
        cells=tuple(data.cell(benchmark, options.limit) for benchmark in benchmarks),
        include_path=data.include_path,
        checkpoints=checkpoints,
        batch_size=options.batch_size or (LARGE_BATCH if checkpoints.trained_by else SMALL_BATCH),
        device=device,
        num_processes=options.num_processes,
        limit=options.limit,
        model_args={name: value for name, value in model_args.items() if name != TARGET},
        target_ratio=target_ratio(model_args),
        environment=data.environment,
    )
    runs = plan_runs(cards, rows, conditions, runs_root, options.num_seeds)
    folders = local_checkpoints(runs, checkpoints.trained_by)
    inputs = find_inputs(runs, folders, conditions.cells, data.include_path)
    jobs = options.jobs or (min(4, num_cores()) if conditions.device == "cpu" else 1)
    plans = {run.name: unfinished(run, inputs, check_cells, fresh=options.fresh) for run in runs}
    passes = plan_passes(runs, {name: left for name, (_, left) in plans.items()}, jobs=jobs, shared=options.shared_pass)
    if dry_run:
        _check(runs, device)
        show_plan(runs, plans, passes)
        return
    jobs = at_once(passes, jobs)
    is_offline = all(cell.documents is not None for cell in conditions.cells) and all(
        name in folders for run in runs for name in run.checkpoints
    )
    environment = environment_of(num_cores() // (jobs * options.num_processes), is_offline=is_offline)
    with starting(passes, environment) as launch:
        if passes:
            _check(runs, device)
        for folder in (out, runs_root):
            check_writable(folder)
        if html is not None:
            check_page_folder(html)
        with only_one(runs_root):
            failures = _execute(
                runs,
                passes,
                inputs=inputs,
                jobs=jobs,
                launch=launch,
                fresh=options.fresh,
                console=console,
            )
    baseline = next(iter(cards.values())).title
    problem = None
    if finished := _with_results(runs, baseline, console):
        try:
            written = write_report(
                [(run.title, run.folder) for run in runs if run.folder in finished],
                table=suite.name,
                out=out,
                baseline=baseline,
                benchmarks=[benchmark.title for benchmark in benchmarks],
                only=finished,
                note=FIXTURES_NOTE if options.fixtures else None,
                html=html,
            )
            print_report(written)
        except UserError as error:
            problem = f"There is no table: {error}"
    console.print(f"Finished in {_minutes(time.monotonic() - started)}.", highlight=False)
    if failures or problem:
        told = [problem] if problem else []
        if failures:
            told.append(
                f"{len(failures)} of {sum(len(run.cells) for run in runs)} cells are not complete. The same command "
                f"tries them again and keeps every answer that there is.\n\n{describe(failures)}"
            )
        raise CellsFailed("\n\n".join(told))


def _check(runs: Sequence[PlannedRun], device: str) -> None:
    """What loads torch and transformers, which takes seconds; a table that is finished does without."""
    check_device(device)
    check_models(runs, check_folders(dict.fromkeys(name for run in runs for name in run.checkpoints)))


def target_ratio(model_args: ModelArgs) -> float | None:
    """The share of visual tokens that the arguments name, for rows that would take another row's.

    Raises:
        ConfigError: it is no share.
    """
    value = model_args.get(TARGET)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise ConfigError(f"--model-args has {TARGET}={value}; expected a share of visual tokens in (0, 1].")
    return float(value)


def choose_benchmarks(suite: Suite, options: RunOptions, console: Console) -> list[Benchmark]:
    """The suite's benchmarks that are to be run; says which are left out because they need a judge.

    Raises:
        ConfigError: one that the suite doesn't have, or none is left.
    """
    catalogue = load_benchmarks()
    for name in options.benchmarks:
        if name not in suite.benchmarks:
            raise unknown_name("benchmark", name, suite.benchmarks, where=suite.name)
    chosen = [catalogue[name] for name in suite.benchmarks if not options.benchmarks or name in options.benchmarks]
    if judged := [benchmark.title for benchmark in chosen if benchmark.judge and not options.judge]:
        console.print(
            f"Left out: {', '.join(judged)}, whose score is another model's judgement. --judge runs it; lmms-eval then "
            "needs API_TYPE and the key of that API.",
            highlight=False,
        )
    left = [benchmark for benchmark in chosen if options.judge or not benchmark.judge]
    if not left:
        raise ConfigError(f"--benchmark leaves nothing to run: {', '.join(judged)} can't be scored without --judge.")
    return left


def check_cells(folder: Path, cells: Sequence[Cell]) -> None:
    """See that a run has an answer to every document of cells.

    Raises:
        DocumentsFailed: it has results, and documents that could not be answered.
        ReportError: it has none, or documents are missing from them.
    """
    wanted = [task for cell in cells for task in cell.results]
    tasks = read_run(folder, only=wanted).tasks
    if missing := [task for task in wanted if task not in tasks]:
        raise ReportError(f"{folder} has no results of {', '.join(missing)}.")
    documents = [document for task in tasks.values() for document in task.documents]
    if failed := [document.failure for document in documents if document.failure is not None]:
        first = failed[0].rstrip(".")
        raise DocumentsFailed(f"{len(failed)} of {len(documents)} documents have no answer; the first: {first}.")


def _execute(
    runs: Sequence[PlannedRun],
    passes: Sequence[Pass],
    *,
    inputs: Inputs,
    jobs: int,
    launch: Launch,
    fresh: bool,
    console: Console,
) -> list[Failure]:
    counts = [run.documents for run in runs]
    known = "" if None in counts else f", {sum(count for count in counts if count is not None)} answers"
    console.print(
        f"{in_passes(runs, passes)}{known}, {jobs} at a time. Logs and answers: {runs[0].folder.parent}/",
        highlight=False,
    )
    progress: AbstractContextManager[LiveProgress | PlainProgress] = (
        LiveProgress(console, runs) if console.is_terminal else PlainProgress(console, runs)
    )
    try:
        with progress as shown:
            return execute(
                runs,
                passes,
                inputs=inputs,
                jobs=jobs,
                launch=launch,
                check=check_cells,
                progress=shown,
                fresh=fresh,
            )
    except KeyboardInterrupt:
        console.print("Stopped. The same command keeps every answer that there is and goes on with the others.")
        raise


def _with_results(runs: Sequence[PlannedRun], baseline: str, console: Console) -> dict[Path, list[str]]:
    """The tasks that a table can be made of, by folder; none where the row that counts as 100% has no results."""
    found: dict[Path, list[str]] = {}
    for run in runs:
        # A cell with documents that failed is in the table, and says so there.
        unreadable = [
            cell
            for cell, problem in problems_of(run, run.cells, check_cells)
            if not isinstance(problem, DocumentsFailed)
        ]
        readable = [cell for cell in run.cells if cell not in unreadable]
        if readable:
            found[run.folder] = [task for cell in readable for task in cell.results]
    if baseline not in {run.title for run in runs if run.folder in found}:
        console.print(f"No table: {baseline}, which counts as 100%, has no results.", highlight=False)
        return {}
    return found


@contextmanager
def only_one(runs_root: Path) -> Iterator[None]:
    """Holds a table's runs while they are worked on.

    Raises:
        ConfigError: another command works on them.
    """
    with (runs_root / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(f"another command works on {runs_root}; wait for it, or stop it.") from error
        yield


def _model_args(suite: Suite, options: RunOptions) -> ModelArgs:
    """The suite's arguments and the user's, which win."""
    own = dict(suite.model_args)
    if options.fixtures and TARGET in own:
        own[TARGET] = max(float(own[TARGET]), REHEARSED_SHARE)
    return {**own, **options.model_args}


def _runs_root(suite: Suite, options: RunOptions) -> Path:
    parts = [suite.name]
    if options.checkpoint is not None:
        parts.append(re.sub(r"[^A-Za-z0-9.]+", "-", options.checkpoint).strip("-."))
    if options.fixtures:
        parts.append("fixtures")
    if options.limit is not None:
        parts.append(f"limit{options.limit}")
    return Path("runs") / "-".join(parts)


def _default_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"
