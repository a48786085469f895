"""The program of a pass: evaluates its rows with lmms-eval, one after the other, in this process.

`python -m lmms_eval --config FILE` does the same but reads its 3,290 task files for every row, which takes longer than
scoring one. Here they are read once, or not at all if all tasks are in the rows' own folder.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs
from lmms_eval.__main__ import parse_eval_args
from lmms_eval.evaluator import simple_evaluate
from lmms_eval.loggers import EvaluationTracker
from lmms_eval.tasks import TaskManager
from lmms_eval.utils import get_datetime_str

from vico_eval.errors import BAD_INPUT, DOCUMENT_FAILURES, UserError
from vico_eval.harnesses.lmms_eval.passes import PassRow, read_pass
from vico_eval.harnesses.lmms_eval.processes import ShardAnswered
from vico_eval.logs import logger

WAIT = timedelta(seconds=60000)
"""lmms-eval's timeout for processes that wait for each other."""

FAILURES: tuple[type[Exception], ...] = (UserError, *BAD_INPUT, *DOCUMENT_FAILURES)
"""Errors of a row, its tasks and its data, which don't stop the other rows."""


def main() -> None:
    """Run the pass that `--config` names.

    Raises:
        SystemExit: status 1 if a row has no results; with several processes, all end at that row.
    """
    logger.remove()
    logger.add(sys.stdout, level="INFO")
    parser, options = parse_eval_args()
    try:
        rows = read_pass(Path(options.config))
    except UserError as error:
        sys.exit(str(error))
    accelerator = Accelerator(kwargs_handlers=[InitProcessGroupKwargs(timeout=WAIT)])
    tasks = _task_manager(rows)
    failed = 0
    for row in rows:
        try:
            _evaluate(row, _options_of(row, parser), tasks)
        except ShardAnswered:
            logger.info(f"{row.folder}: all documents of this shard have been asked; they are scored with the others")
        except FAILURES as error:
            traceback.print_exc()
            logger.error(f"{row.folder} has no results: {error}")
            failed += 1
            if accelerator.num_processes > 1:
                sys.exit(1)  # others may be waiting for this process; its launcher stops them
        accelerator.wait_for_everyone()
    sys.exit(1 if failed else 0)


def _task_manager(rows: Sequence[PassRow]) -> TaskManager:
    """Return the task manager of the rows' tasks."""
    include_path = rows[0].include_path
    own = TaskManager("INFO", include_path=include_path, include_defaults=False)
    # A group may contain lmms-eval's tasks.
    if all(own.task_index.get(name, {}).get("type") == "task" for row in rows for name in row.tasks.split(",")):
        return own
    return TaskManager("INFO", include_path=include_path)


def _options_of(row: PassRow, parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Return the row's options with lmms-eval's defaults."""
    return argparse.Namespace(**{**vars(parser.parse_args([])), **row.model_dump(exclude_none=True)})


def _evaluate(row: PassRow, options: argparse.Namespace, tasks: TaskManager) -> None:
    """Evaluate a row like lmms-eval's command line."""
    tasks.model_name = row.model  # a task may have model-specific prompts
    names = row.tasks.split(",")
    known = tasks.match_tasks(names)
    if missing := [name for name in names if name not in known]:
        raise ValueError(f"Tasks not found: {', '.join(missing)}")
    tracker = EvaluationTracker(output_path=row.output_path)
    started = get_datetime_str(timezone=options.timezone)
    results = simple_evaluate(
        model=row.model,
        model_args=row.model_args,
        tasks=known,
        batch_size=row.batch_size,
        device=row.device,
        limit=row.limit,
        log_samples=row.log_samples,
        evaluation_tracker=tracker,
        task_manager=tasks,
        random_seed=options.seed[0],
        numpy_random_seed=options.seed[1],
        torch_random_seed=options.seed[2],
        fewshot_random_seed=options.seed[3],
        cli_args=options,
        datetime_str=started,
        process_docs_parallel=options.process_docs_parallel,
    )
    if results is None:  # another process has the results
        return
    samples = results.pop("samples", None)
    tracker.save_results_aggregated(results=results, samples=samples, datetime_str=started)
    for task in results["configs"] if samples is not None else ():
        tracker.save_results_samples(task_name=task, samples=samples[task])


if __name__ == "__main__":
    main()
