"""Processes that only pretend, and runs for them."""

from collections import defaultdict
from itertools import count
from pathlib import Path

import yaml

from vico_eval.commands.work.execute import execute
from vico_eval.commands.work.goals import Goal
from vico_eval.commands.work.inputs import Inputs
from vico_eval.commands.work.passes import plan_passes
from vico_eval.commands.work.plan import Cell, PlannedRun
from vico_eval.commands.work.run_folders import DocumentsFailed, unfinished
from vico_eval.errors import ReportError

READ, DOC, BAR = (
    Cell(benchmark=name, tasks=(name.lower(),), results=(name.lower(),)) for name in ("Read", "Doc", "Bar")
)

SECONDS = count(1)
"""Of the names of results files, which are dates."""


def check(folder, cells):
    for cell in cells:
        file = folder / cell.benchmark
        if not file.exists():
            raise ReportError(f"{folder.name} has no results of {cell.benchmark}.")
        if file.read_text():
            raise DocumentsFailed(file.read_text())


class FakeProcess:
    """Answers its runs' tasks at its second poll; where a run's task is `broken`, none of that run has results."""

    def __init__(self, name, entries, log, world):
        self.name, self.entries, self.log, self.world, self.polls = name, entries, log, world, 0
        log.write_text("loading\nthe reason\n")
        world.events.append(f"start {name} {' '.join(entries[0][1])}")
        world.alive += 1
        world.most_alive = max(world.most_alive, world.alive)

    def poll(self):
        self.polls += 1
        if self.polls < 2:
            return None
        self.world.alive -= 1
        for number, (folder, tasks) in enumerate(self.entries):
            if number >= self.world.entries_before_death.get(self.name, len(self.entries)):
                return -9
            self.answer(folder, tasks)
        return self.world.status

    def answer(self, folder, tasks):
        reasons = [self.world.broken[folder.name, task] for task in tasks if (folder.name, task) in self.world.broken]
        if reasons:
            with self.log.open("a") as log:
                log.write(f"12:00 | ERROR | Error during evaluation: {reasons[0]}. Please set `--verbosity=DEBUG` to\n")
            return
        for task in tasks:
            (folder / task.capitalize()).write_text(self.world.bad_documents.get((folder.name, task), ""))
        (folder / f"20260101_{next(SECONDS):06}_results.json").write_text("{}")

    def stop(self):
        self.world.events.append(f"stop {self.name}")

    def end(self):
        self.world.events.append(f"end {self.name}")


class World:
    """Launches fakes, hears the progress and remembers both."""

    process = FakeProcess

    def __init__(self, *, broken=None, bad_documents=None, status=0, entries_before_death=None):
        self.events, self.together, self.commands, self.alive, self.most_alive = [], [], [], 0, 0
        self.broken, self.bad_documents, self.status = broken or {}, bad_documents or {}, status
        self.entries_before_death = entries_before_death or {}
        """By process, how many of its runs have results when it is killed."""

    def launch(self, run, command, log):
        """A run's own command, or that of a pass."""
        self.commands.append(command)
        if "--config" in command:
            file = Path(command[command.index("--config") + 1])
            entries = yaml.safe_load(file.read_text())
            found = [(Path(entry["output_path"]), entry["tasks"].split(",")) for entry in entries]
            return self.process(file.stem, found, log, self)
        return self.process(run.name, [(run.folder, command[command.index("--tasks") + 1].split(","))], log, self)

    def set_aside(self, run, folder, reason):
        self.events.append(f"set aside {run.name} since {reason}")

    def kept(self, run):
        self.events.append(f"kept {run.name}")

    def started(self, runs):
        self.together.append([run.name for run in runs])

    def parted(self, run, log):
        self.events.append(f"parted {run.name} from {log.stem}")

    def advanced(self, run, documents):
        pass

    def finished(self, run, seconds):
        self.events.append(f"done {run.name}")

    def failed(self, run):
        self.events.append(f"failed {run.name}")


def make_run(root, name, after=None, cells=(READ,), **model_args):
    """A run of the table whose runs are under `root`."""
    folder = root / name
    told = {"pretrained": "base", **model_args}
    return PlannedRun(
        name=name,
        system=name,
        title=name,
        folder=folder,
        cells=cells,
        launcher=(),
        model=name,
        model_args=told,
        arguments=(
            *("--model", name, "--model_args", ",".join(f"{key}={value}" for key, value in told.items())),
            *("--batch_size", "8", "--log_samples", "--output_path", str(folder)),
        ),
        device="cpu",
        after=after,
    )


def read(version="1.0", weights="x", tasks="x"):
    return Inputs(
        versions={"vico_eval": version},
        checkpoints=defaultdict(lambda: {"vico-tiny": weights}),
        written_s=defaultdict(float),
        cells=defaultdict(lambda: tasks),
    )


def go(world, runs, *, inputs=None, jobs=1, fresh=False, shared=False):
    """Plan and execute runs; what happened."""
    inputs = inputs or read()
    left = {run.name: unfinished(run, inputs, check, fresh=fresh)[1] for run in runs}
    world.failures = execute(
        runs,
        plan_passes(runs, left, jobs=jobs, shared=shared),
        inputs=inputs,
        jobs=jobs,
        launch=world.launch,
        goal=Goal(check),
        progress=world,
        fresh=fresh,
        poll_s=0.001,
    )
    return world.events


def failed(world):
    return [(failure.run.name, failure.cell.benchmark, failure.reason) for failure in world.failures]
