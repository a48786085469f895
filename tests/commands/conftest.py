import sys
from pathlib import Path

import pytest

from vico_eval.commands.processes import Subprocess

SOME_TASKS = Path(__file__).parents[1] / "some_tasks.py"

PROGRAMS = ("lmms_eval", "vico_eval.harnesses.lmms_eval.run_pass")


@pytest.fixture
def only_tasks_of(monkeypatch):
    """Takes folders of lmms-eval's tasks: it is started with these alone, and without accelerate's launcher.

    Both only cost seconds; the process that `test_run_killed` kills has them.
    """

    def choose(*folders):
        def start(command, log, environment):
            place = next(place for place, word in enumerate(command) if word in PROGRAMS)
            words = (sys.executable, str(SOME_TASKS), ",".join(folders), *command[place:])
            return Subprocess(words, log, environment)

        monkeypatch.setattr("vico_eval.commands.starting.Subprocess", start)

    return choose
