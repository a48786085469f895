import shlex
from pathlib import Path

import pytest

SOME_TASKS = Path(__file__).parents[1] / "some_tasks.py"

PROGRAMS = ("lmms_eval", "vico_eval.harnesses.lmms_eval.run_pass")


@pytest.fixture
def only_tasks_of(monkeypatch, start_loaded):
    """Takes folders of lmms-eval's tasks: it runs with these alone, is loaded already, and has no launcher.

    All three only cost seconds; the processes that `test_run_killed` and `test_run_shards` kill have them, and
    `test_warm` sees how passes are started otherwise.
    """

    def choose(*folders):
        def start(command, log, environment):
            place = next(place for place, word in enumerate(command) if word in PROGRAMS)
            log.write_text(f"$ {shlex.join(command)}\n\n")
            (program,) = start_loaded([SOME_TASKS, ",".join(folders), *command[place:]], log, **environment)
            return program

        class Loaded:
            """In the place of a `WarmStart`."""

            is_alive = True

            def __init__(self, environment):
                self.environment = environment

            def __enter__(self):
                return self

            def __exit__(self, *error):
                pass

            def start(self, command, config, log):
                return start(command, log, self.environment)

        monkeypatch.setattr("vico_eval.commands.work.starting.Subprocess", start)
        monkeypatch.setattr("vico_eval.commands.work.starting.WarmStart", Loaded)

    return choose
