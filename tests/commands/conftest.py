import sys
from pathlib import Path

import pytest

from vico_eval.commands.processes import Subprocess

SOME_TASKS = Path(__file__).parents[1] / "some_tasks.py"


@pytest.fixture
def only_tasks_of(monkeypatch):
    """Takes folders of lmms-eval's tasks: it is started with these alone, and without accelerate's launcher.

    Both only cost seconds; the process that `test_run_killed` kills has them.
    """

    def choose(*folders):
        def start(command, log, environment):
            arguments = command[command.index("lmms_eval") + 1 :]
            return Subprocess([sys.executable, str(SOME_TASKS), ",".join(folders), *arguments], log, environment)

        monkeypatch.setattr("vico_eval.commands.run.Subprocess", start)

    return choose
