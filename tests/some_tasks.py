"""lmms-eval's command line with its own tasks of some folders only: to read all 3,000 files takes it ten seconds.

python tests/some_tasks.py FOLDER,FOLDER (or "" for none) [lmms-eval's arguments]
"""

import sys
from pathlib import Path

import lmms_eval.__main__ as program
from lmms_eval.tasks import TaskManager
from lmms_eval.tasks import __file__ as packaged

if __name__ == "__main__":
    folders = [str(Path(packaged).parent / name) for name in sys.argv.pop(1).split(",") if name]
    program.TaskManager = lambda verbosity, include_path, model_name: TaskManager(
        verbosity, include_path=[*folders, include_path], include_defaults=False, model_name=model_name
    )
    program.cli_evaluate()
