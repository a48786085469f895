"""lmms-eval, or a pass, with lmms-eval's own tasks of some folders only: to read all 3,000 files takes ten seconds.

python tests/some_tasks.py FOLDER,FOLDER (or "" for none) lmms_eval|vico_eval.harnesses.lmms_eval.run_pass [arguments]
"""

import sys
from pathlib import Path

import lmms_eval.__main__ as lmms_eval_program
from lmms_eval.tasks import TaskManager
from lmms_eval.tasks import __file__ as packaged

from vico_eval.harnesses.lmms_eval import run_pass

if __name__ == "__main__":
    folders = [str(Path(packaged).parent / name) for name in sys.argv.pop(1).split(",") if name]
    is_pass = sys.argv.pop(1) == run_pass.__spec__.name

    def some(verbosity, include_path, include_defaults=True, model_name=None):
        paths = [*folders, include_path] if include_defaults else [include_path]
        return TaskManager(verbosity, include_path=paths, include_defaults=False, model_name=model_name)

    lmms_eval_program.TaskManager = run_pass.TaskManager = some
    run_pass.main() if is_pass else lmms_eval_program.cli_evaluate()
