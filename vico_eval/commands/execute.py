"""Runs planned lmms-eval processes: several at once, resumable, each with a log."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import vico_eval
from vico_eval.commands.plan import PlannedRun
from vico_eval.commands.progress import Progress
from vico_eval.errors import ReportError, UserError

LOG_TAIL_LINES = 15
REQUEST_FILE = "request.json"
_LMMS_EVAL_ERROR = re.compile(r"Error during evaluation: (.*?)\.? Please set `--verbosity=DEBUG`", re.DOTALL)

Check = Callable[[Path], object]
"""Raises ReportError where a run folder has no results or a document without an answer."""


class RunFailed(UserError):
    """lmms-eval did not answer every document; carries the end of its log and the command to repeat."""


class Process(Protocol):
    """A started run."""

    def poll(self) -> int | None:
        """The exit status, or None while it runs."""

    def stop(self) -> None:
        """End it, with everything that it started."""


Launch = Callable[[PlannedRun, Path], Process]
"""Starts a run whose output goes to a log file."""


class Subprocess:
    """A run as a process group of its own, so that stopping it leaves no orphan behind accelerate's launcher."""

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                start_new_session=True,
            )

    def poll(self) -> int | None:
        return self._process.poll()

    def stop(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
            self._process.wait()


def fingerprint(paths: Iterable[Path]) -> str:
    """SHA-256 over the names and bytes of the files under `paths`, caches left out."""
    digest = hashlib.sha256(vico_eval.__version__.encode())
    for root in paths:
        for path in sorted(path for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
            digest.update(f"{root.name}/{path.relative_to(root)}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def execute(
    runs: Sequence[PlannedRun],
    *,
    inputs: str,
    jobs: int,
    launch: Launch,
    check: Check,
    progress: Progress,
    fresh: bool = False,
    poll_s: float = 0.25,
) -> None:
    """Bring every run to completion, `jobs` at a time; those complete with the same command and inputs are kept.

    Args:
        inputs: fingerprint of what the runs read: code, tasks, checkpoints.
        fresh: repeat complete runs too.

    Raises:
        RunFailed: a run ended without answering every document. Nothing is started after it; what runs is finished.
    """
    done: set[str] = set()
    pending: list[PlannedRun] = []
    for run in runs:
        # A run that draws on a repeated one is repeated with it.
        if not fresh and (run.after is None or run.after in done) and _is_complete(run, inputs, check):
            done.add(run.name)
            progress.kept(run)
        else:
            pending.append(run)
    running: dict[str, tuple[PlannedRun, Process, float]] = {}
    failures: list[str] = []
    try:
        while pending or running:
            for run in [run for run in pending if run.after is None or run.after in done][: jobs - len(running)]:
                pending.remove(run)
                _prepare(run, inputs)
                running[run.name] = (run, launch(run, log_path(run)), time.monotonic())
                progress.started(run)
            time.sleep(poll_s)
            for run, process, since in list(running.values()):
                progress.advanced(run, documents_answered(run.folder))
                status = process.poll()
                if status is None:
                    continue
                del running[run.name]
                reason = _failure(run, status, check)
                if reason is None:
                    done.add(run.name)
                    progress.finished(run, time.monotonic() - since)
                else:
                    failures.append(reason)
                    progress.failed(run)
                    pending.clear()
    finally:
        for _, process, _ in running.values():
            process.stop()
    if failures:
        raise RunFailed("\n\n".join(failures))


def documents_answered(folder: Path) -> int:
    """Documents of a run that have an account so far: lines of its `answers.rank*.jsonl`."""
    count = 0
    for path in folder.glob("answers.rank*.jsonl"):
        with path.open("rb") as lines:
            count += sum(1 for _ in lines)
    return count


def log_path(run: PlannedRun) -> Path:
    """Where a run's output goes: beside its folder, which is emptied before each start."""
    return run.folder.with_name(f"{run.name}.log")


def _request(run: PlannedRun, inputs: str) -> dict[str, object]:
    return {"command": list(run.command), "inputs": inputs}


def _is_complete(run: PlannedRun, inputs: str, check: Check) -> bool:
    path = run.folder / REQUEST_FILE
    if not path.is_file() or path.read_text(encoding="utf-8") != json.dumps(_request(run, inputs), indent=1):
        return False
    try:
        check(run.folder)
    except ReportError:
        return False
    return True


def _prepare(run: PlannedRun, inputs: str) -> None:
    if run.folder.exists():
        shutil.rmtree(run.folder)
    run.folder.mkdir(parents=True)
    (run.folder / REQUEST_FILE).write_text(json.dumps(_request(run, inputs), indent=1), encoding="utf-8")


def _failure(run: PlannedRun, status: int, check: Check) -> str | None:
    # lmms-eval ends with 0 after most failures, so the exit status alone proves nothing.
    reason = f"lmms-eval ended with status {status}."
    if status == 0:
        try:
            check(run.folder)
        except ReportError as error:
            reason = str(error)
        else:
            return None
    log = log_path(run)
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    if said := _LMMS_EVAL_ERROR.search(text):
        reason = said[1]
    tail = "\n".join(f"  {line}" for line in text.splitlines()[-LOG_TAIL_LINES:])
    return (
        f"Row `{run.name}` failed: {reason}\nThe end of {log}:\n{tail}\n"
        f"To repeat it alone:\n  {shlex.join(run.command)}"
    )
