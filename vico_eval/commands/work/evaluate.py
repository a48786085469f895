"""Evaluation of a suite from Python, as a DataFrame."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vico_eval.commands.work.options import RunOptions
from vico_eval.commands.work.plan import ModelArgs
from vico_eval.commands.work.report import table_frame
from vico_eval.commands.work.run import run_suite
from vico_eval.engine.settings import TRANSFORMERS

if TYPE_CHECKING:
    import pandas as pd

    from vico_eval.report import Report


def evaluate(
    suite: str = "tiny",
    *,
    rows: Sequence[str] = (),
    benchmarks: Sequence[str] = (),
    checkpoint: str | None = None,
    budgets: Sequence[float] = (),
    limit: int | None = None,
    num_seeds: int = 1,
    batch_size: int | None = None,
    device: str | None = None,
    engine: str = TRANSFORMERS,
    model_args: ModelArgs | None = None,
    out: str | Path | None = None,
) -> pd.DataFrame:
    """Evaluate a suite with lmms-eval, like `vico-eval run`, and return its table of rows (systems) and benchmarks.

    Processes are started for unfinished cells. Answers, logs, the table and its page are kept under `runs/` in the
    working folder, so a repeated call only reads them.

    Args:
        suite: name of a suite, or of its table (`vico-eval tasks --suites` lists them).
        rows: names of systems; empty for the suite's own. The baseline is always included.
        benchmarks: names in tasks/benchmarks.yaml; empty for all benchmarks of the suite.
        checkpoint: a size (`8B`), a folder or hub id for all rows, or `base=...,vico=...`; None for the suite's own.
        budgets: shares of the visual tokens to keep, in (0, 1), for rows that would otherwise use another row's share.
        limit: first documents of each task; None for all.
        num_seeds: number of seeds of each stochastic row.
        batch_size: documents per batch; None for 8, or 32 with a built-in checkpoint.
        device: the models' device; None for a GPU if available.
        engine: `transformers` or `vllm`.
        model_args: further arguments of every row's model.
        out: folder of the table's files; None for one beside the runs.

    Returns:
        One line per row title: a score for each benchmark (0 to 100), and `Avg.`, which is the retention, as in papers;
        then mean_score, retention (percent of the baseline's mean score) with retention_low and retention_high (95%
        interval), difference (points), tile_ratio and token_share (percent), documents, runs and the standard errors.
        NaN for unknown values.

    Raises:
        UserError: the input is invalid, or cells failed; the message names them and the command that repeats them.

    Example:
        >>> import vico_eval
        >>> table = vico_eval.evaluate("tiny", rows=["vico", "fastv"], limit=20)
        >>> table[["Avg.", "retention", "token_share"]]
    """
    options = RunOptions(
        rows=rows,
        benchmarks=benchmarks,
        checkpoint=checkpoint,
        budgets=budgets,
        limit=limit,
        num_seeds=num_seeds,
        batch_size=batch_size,
        device=device,
        engine=engine,
        model_args=model_args or {},
        out=None if out is None else Path(out),
    )
    written: list[Report] = []
    run_suite(suite, options, show=written.append)
    (report,) = written
    return table_frame(report.table)
