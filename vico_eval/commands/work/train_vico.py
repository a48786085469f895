"""`vico-eval train consistency` and `vico-eval train router`: in this process, or in several through accelerate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from rich.table import Table

from vico_eval.commands.output import check_writable, message_console, results_console
from vico_eval.commands.work.launching import launch
from vico_eval.training.config import ConsistencyConfig, read_consistency, read_router

Stage = Literal["consistency", "router"]


def train(stage: Stage, config: Path, processes: int | None, accelerate_config: Path | None) -> None:
    """Run a stage, or launch the processes that do.

    Raises:
        ConfigError: the configuration can't be read or is invalid; nothing is started then.
        See `train_consistency` and `train_router` for others.
    """
    settings = read_consistency(config) if stage == "consistency" else read_router(config)
    check_writable(settings.out)
    if processes is not None or accelerate_config is not None:
        launch([stage, config], processes, accelerate_config)
        return
    from accelerate import PartialState

    from vico_eval.training.saving.files import output_errors
    from vico_eval.training.stages import REPORT, train_consistency, train_router

    with output_errors(settings.out):
        folder = train_consistency(settings) if isinstance(settings, ConsistencyConfig) else train_router(settings)
    if PartialState().is_main_process:
        _show(settings.out / REPORT)
        message_console().print(f"Written: {folder}/", markup=False, highlight=False, soft_wrap=True)


def _show(path: Path) -> None:
    """Print the held-out report."""
    report = json.loads(path.read_text(encoding="utf-8"))
    console = results_console()
    for name, found in report.items():
        table = Table(title=f"Held out: {name}", title_justify="left")
        lines = found if isinstance(found, list) else [found]
        for column in lines[0]:
            table.add_column(column.replace("_", " "), justify="right")
        for line in lines:
            table.add_row(*("-" if value is None else f"{value:.4g}" for value in line.values()))
        console.print(table)
