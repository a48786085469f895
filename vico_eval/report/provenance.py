"""Provenance of every number in a report."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from vico_eval.report.scores.counted import CountedRun
from vico_eval.report.stats.measurements import Measurements
from vico_eval.report.tables.table import Table


def provenance_of(table: Table, measured: Measurements, runs: Sequence[CountedRun], out: Path) -> dict[str, Any]:
    """Every cell with its run and files, and every run with its record. Paths are relative to the report's folder."""
    return {
        "baseline": table.baseline,
        "cells": [
            {
                "row": cell["row"],
                "benchmark": cell["benchmark"],
                "run": cell["run"],
                "score": None if pd.isna(cell["score"]) else cell["score"],
                "failed": cell["failed"],
                "source": cell["source"],
                "documents": cell["documents"],
                "tiles": _count(cell["tiles"]),
                "compressed_tiles": _count(cell["compressed_tiles"]),
                "visual_tokens": _count(cell["visual_tokens"]),
                "results": [relative_place(Path(path), out) for path in cell["results"]],
                "samples": [relative_place(Path(path), out) for path in cell["samples"]],
            }
            for cell in measured.cells.to_dict("records")
        ],
        "runs": [
            {
                "run": number,
                "row": run.row,
                "folder": relative_place(run.folder, out),
                "record": run.record.model_dump(mode="json"),
            }
            for number, run in enumerate(runs)
        ],
        "notes": list(table.notes),
    }


def _count(value: float) -> int | None:
    return None if pd.isna(value) else int(value)


def relative_place(path: Path, out: Path) -> str:
    """The path relative to a report's folder, with forward slashes."""
    return Path(os.path.relpath(path.resolve(), out.resolve())).as_posix()
