"""`docs/slurm.sh`, run as Slurm runs the jobs of an array; a script stands for the command that it starts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vico_eval.commands.work.gpus import VISIBLE
from vico_eval.runs.shards import Shard, parse_shard

SCRIPT = Path(__file__).parents[2] / "docs" / "slurm.sh"
TOLD = f"#!{sys.executable}\nimport json, os, sys\nprint(json.dumps([os.getcwd(), os.getpid(), sys.argv[1:]]))\n"


@pytest.fixture
def job(tmp_path):
    """Runs a job of an array: its number, the array's size, and the arguments of the script."""
    command = tmp_path / "bin" / "vico-eval"
    command.parent.mkdir()
    command.write_text(TOLD)
    command.chmod(0o755)
    submitted = tmp_path / "where it was submitted"
    submitted.mkdir()

    def start(number, count, *arguments, **more):
        slurm = {"SLURM_ARRAY_TASK_ID": str(number), "SLURM_ARRAY_TASK_COUNT": str(count)}
        path = f"{command.parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, **slurm, "SLURM_SUBMIT_DIR": str(submitted), "PATH": path, **more}
        process = subprocess.Popen(
            ["bash", str(SCRIPT), *arguments], env=environment, cwd=tmp_path, stdout=subprocess.PIPE, text=True
        )
        said, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        folder, pid, words = json.loads(said)
        assert folder == str(submitted)
        assert pid == process.pid  # Slurm's signals reach it
        return words

    return start


def test_the_jobs_of_an_array_have_all_shards_between_them(job):
    found = [job(number, 3, "tiny")[-1] for number in (1, 2, 3)]
    assert [parse_shard(text) for text in found] == [Shard(number, 3) for number in (1, 2, 3)]


def test_a_job_that_is_submitted_again_alone_has_the_same_shard(job):
    assert job(3, 1, "tiny", SHARDS="8")[-1] == "3/8"


def test_the_script_s_arguments_reach_the_command_as_they_are(job, run, tmp_path, monkeypatch):
    words = job(2, 4, "tiny", "--rows", "vanilla", "--launch", "env NAME='a  b' $HOME *")
    assert words[-4:] == ["--device", "cuda", "--shard", "2/4"]
    assert words[words.index("--launch") + 1] == "env NAME='a  b' $HOME *"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(VISIBLE, "0,1")
    status, _, err = run(*words, "--dry-run")  # which knows all of them
    assert status == 0, err
    assert "env 'NAME=a  b' '$HOME' '*'" in err
