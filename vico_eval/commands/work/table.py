"""A suite as a table to fill: its rows and benchmarks, their folders, and each run's inputs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from vico_eval import paths
from vico_eval.budgets import share_text
from vico_eval.cards import find_checkpoints, load_cards, select_cards
from vico_eval.commands.output import check_writable
from vico_eval.commands.work.at_work import held
from vico_eval.commands.work.checks import refusals
from vico_eval.commands.work.inputs import Inputs, find_inputs, local_checkpoints
from vico_eval.commands.work.kinds import cards_of_kind, kind_of_checkpoints, with_methods
from vico_eval.commands.work.options import RunOptions
from vico_eval.commands.work.plan import ALL_WEIGHTS, Conditions, ModelArgs, PlannedRun, plan_runs
from vico_eval.commands.work.starting import num_cores
from vico_eval.commands.work.task_data import local_data, own_data
from vico_eval.engine.settings import TRANSFORMERS
from vico_eval.errors import ConfigError, unknown_name
from vico_eval.report.page.folder import check_page_folder
from vico_eval.runs.shards import Shard
from vico_eval.suites import Benchmark, Suite, load_benchmarks, load_suite

RESERVED = frozenset(
    (
        *("pretrained", "flash_from", "ratio_from", "decisions_from", "seed", "method", "variant"),
        *("record_dir", "resume", "keep_going", "shared_pass", "shard"),
    )
)
"""Model arguments that distinguish rows and runs."""

OPTIONS = {
    "batch_size": "--batch-size",
    "device": "--device",
    "gpus_per_process": "--gpus-per-process",
    "engine": "--engine",
    "server": "--server",
    "target_ratio": "--budgets",
}
"""Model arguments that are options of the command; lmms-eval passes them separately."""

REHEARSED_SHARE = 0.5
"""Token budgets that every method can reach with the four layers of the built-in checkpoints."""

SMALL_BATCH, LARGE_BATCH = 8, 32
"""Documents per batch for real checkpoints, and for built-in ones."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """The runs of a table, and the places of its results."""

    suite: Suite
    options: RunOptions
    benchmarks: tuple[Benchmark, ...]
    runs: tuple[PlannedRun, ...]
    baseline: str
    """Title of the baseline."""

    inputs: Inputs
    device: str
    jobs: int
    """Number of processes, or launchers of several, at once."""

    is_offline: bool
    """Whether all inputs of the runs are on this machine."""

    runs_root: Path
    """The folder of the runs' folders."""

    out: Path
    """Folder of the table."""

    html: Path | None
    """Folder of the page; None for none."""


def plan_table(name: str, options: RunOptions, console: Console) -> Table:
    """Plan the table of a suite with the user's options.

    Raises:
        UserError: the input is invalid.
    """
    _check_arguments(options.model_args)
    suite = load_suite(name)
    cards = with_methods(load_cards(paths.models_dir(), suite.cards), options.rows)
    checkpoints = find_checkpoints(options.checkpoint, suite, is_small=options.fixtures)
    benchmarks = choose_benchmarks(suite, options, console)
    is_all, budgets = tuple(options.rows) == ("all",), _budgets(suite, options)
    select_cards(cards, () if is_all else options.rows)
    cards, rows = cards_of_kind(
        cards,
        kind_of_checkpoints(checkpoints),
        asked=() if is_all else options.rows,
        by_suite=() if is_all else suite.rows,
        has_budgets=bool(budgets),
        console=console,
    )
    device = _default_device() if options.device is None else options.device
    options.launching.check(device, options.jobs)
    runs_root = _runs_root(suite, options)
    data = local_data(runs_root / "data", benchmarks) if options.fixtures else own_data()
    conditions = Conditions(
        cells=tuple(data.cell(benchmark, options.limit) for benchmark in benchmarks),
        include_path=data.include_path,
        checkpoints=checkpoints,
        batch_size=options.batch_size or (LARGE_BATCH if checkpoints.trained_by else SMALL_BATCH),
        device=device,
        launching=options.launching,
        limit=options.limit,
        model_args=_model_args(suite, options),
        budgets=budgets,
        environment=data.environment,
        servers=options.servers,
    )
    runs = plan_runs(cards, rows, conditions, runs_root, options.num_seeds)
    if options.budgets and all(run.budget is None for run in runs):
        raise ConfigError("--budgets has no effect, since none of these rows takes a token budget. Leave it out.")
    _check_servers(runs, options.servers)
    folders = local_checkpoints(runs, checkpoints.trained_by)
    runs = _reachable(runs, conditions.budgets, console)
    return Table(
        suite=suite,
        options=options,
        benchmarks=tuple(benchmarks),
        runs=tuple(runs),
        baseline=next(iter(cards.values())).title,
        inputs=find_inputs(runs, folders, conditions.cells, data.include_path),
        device=device,
        jobs=options.jobs or _default_jobs(options, device),
        is_offline=all(cell.documents is not None for cell in conditions.cells)
        and all(name in folders for run in runs for name in run.checkpoints),
        runs_root=runs_root,
        out=runs_root / "report" if options.out is None else options.out,
        html=(runs_root / "report" / "page" if options.html is None else options.html) if options.page else None,
    )


@contextmanager
def claimed(
    table: Table,
    runs: Sequence[PlannedRun],
    shard: Shard | None = None,
    prepare: Callable[[PlannedRun], None] | None = None,
) -> Iterator[None]:
    """Check that results can be written, and lock runs, or a shard of them, against other commands; see `held`.

    Raises:
        UserError: they can't be written, or another command works on some of the runs.
    """
    check_outputs(table)
    with held(runs, shard, prepare):
        yield


def check_outputs(table: Table) -> None:
    """Raise OutputError if the table, its page or its runs can't be written."""
    for folder in (table.out, table.runs_root):
        check_writable(folder)
    if table.html is not None:
        check_page_folder(table.html)


def choose_benchmarks(suite: Suite, options: RunOptions, console: Console) -> list[Benchmark]:
    """Return the suite's benchmarks to run; print which are skipped because they need a judge.

    Raises:
        ConfigError: the suite doesn't have a benchmark, or none is left.
    """
    catalogue = load_benchmarks()
    for name in options.benchmarks:
        if name not in suite.benchmarks:
            raise unknown_name("benchmark", name, suite.benchmarks, where=suite.name)
    chosen = [catalogue[name] for name in suite.benchmarks if not options.benchmarks or name in options.benchmarks]
    if judged := [benchmark.title for benchmark in chosen if benchmark.judge and not options.judge]:
        console.print(
            f"Skipped: {', '.join(judged)}, which needs a judge model. Pass --judge to run it; lmms-eval then needs "
            "API_TYPE and the key of that API.",
            highlight=False,
        )
    left = [benchmark for benchmark in chosen if options.judge or not benchmark.judge]
    if not left:
        raise ConfigError(f"--benchmark leaves nothing to run: {', '.join(judged)} can't be scored without --judge.")
    return left


def _check_arguments(model_args: ModelArgs) -> None:
    """Raise ConfigError for arguments that the command sets itself or has as options."""
    if reserved := RESERVED & model_args.keys():
        raise ConfigError(
            f"--model-args has {', '.join(sorted(reserved))}, which each row's command sets itself; leave it out."
        )
    for name in OPTIONS.keys() & model_args.keys():
        raise ConfigError(f"--model-args has {name}; give it as {OPTIONS[name]} {model_args[name]}.")


def _default_jobs(options: RunOptions, device: str) -> int:
    return min(4, num_cores()) if device == "cpu" and not options.launching.is_spread else 1


def _model_args(suite: Suite, options: RunOptions) -> ModelArgs:
    """Merge the suite's arguments with the user's, which take precedence."""
    engine = {} if options.engine == TRANSFORMERS else {"engine": options.engine}
    return {**suite.model_args, **options.model_args, **engine}


def _budgets(suite: Suite, options: RunOptions) -> tuple[float, ...]:
    """Return the user's budgets, or else the suite's; in a rehearsal, those that are possible there."""
    if options.budgets:
        return tuple(options.budgets)
    least = REHEARSED_SHARE if options.fixtures else 0.0
    return tuple(dict.fromkeys(max(share, least) for share in suite.budgets))


def _reachable(runs: list[PlannedRun], budgets: Sequence[float], console: Console) -> list[PlannedRun]:
    """Return the runs whose budgets their method can reach; it can't if too many layers process all tokens.

    Print which are skipped.

    Raises:
        ConfigError: a row reaches no budget.
    """
    if len(budgets) < 2:  # checked with everything else if there is something to do, because it takes seconds
        return runs
    refused = refusals([run for run in runs if run.budget is not None])
    for run in runs:
        if run.name in refused and all(one.name in refused for one in runs if one.system == run.system):
            raise ConfigError(refused[run.name])
    for run in runs:
        if run.budget is not None and run.name in refused:
            place = f"{run.system} at {share_text(run.budget)}"
            console.print(f"Skipped: {place}: {refused[run.name]}", highlight=False, soft_wrap=True)
    return [run for run in runs if run.name not in refused]


def _check_servers(runs: Sequence[PlannedRun], servers: Mapping[str, str]) -> None:
    """Raise ConfigError if one server would decode for several checkpoints."""
    names = list(dict.fromkeys(str(run.model_args["pretrained"]) for run in runs))
    if ALL_WEIGHTS in servers and len(names) > 1:
        raise ConfigError(
            f"--server names one server for all rows, and they have several checkpoints: {', '.join(names)}. Name one "
            "for each kind of weights, as in base=http://a:8000,vico=http://b:8000."
        )


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
