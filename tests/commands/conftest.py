import os
import subprocess
import sys

COMMAND = (sys.executable, "-c", "import sys; from vico_eval.cli import main; main(sys.argv[1:])", "run")


def run(folder, *arguments):
    """`vico-eval run` in a folder, which is made."""
    folder.mkdir(exist_ok=True)
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [*COMMAND, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=500
    )
