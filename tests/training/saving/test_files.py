"""Files that are written whole, full disks, and folders that one training has."""

import os
import subprocess
import sys

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from vico_eval.errors import CheckpointError, OutputError
from vico_eval.training.loop.finite import NotFinite
from vico_eval.training.saving.files import LOCK, held, output_errors, whole_file, whole_folder
from vico_eval.training.small.architecture import load_weights, save_weights
from vico_eval.training.small.vico_tiny.calibrate import absolute_threshold


class Killed(Exception):
    pass


def kill(whole, path, write):
    with whole(path) as unfinished:
        write(unfinished)
        raise Killed


def test_a_file_that_is_not_finished_leaves_the_old_one(tmp_path):
    path = tmp_path / "a.json"
    for _ in range(2):
        with whole_file(path) as unfinished:
            unfinished.write_text("old")
    with pytest.raises(Killed):
        kill(whole_file, path, lambda unfinished: unfinished.write_text("ne"))
    assert path.read_text() == "old"


def test_a_folder_that_is_not_finished_leaves_the_old_one_and_others_files(tmp_path):
    folder = tmp_path / "model"
    for content in ("old", "new"):
        with whole_folder(folder) as unfinished:
            (unfinished / "config.json").write_text(content)
        (folder / "mine.py").write_text("x")
    with pytest.raises(Killed):
        kill(whole_folder, folder, lambda unfinished: (unfinished / "config.json").write_text("newer"))
    assert (folder / "config.json").read_text() == "new"
    assert (folder / "mine.py").exists()


SMALL_FILES_ONLY = """
import resource, signal, sys, torch
from pathlib import Path
from safetensors.torch import save_file
from vico_eval.errors import OutputError
from vico_eval.training.saving.files import output_errors
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
out, values = Path(sys.argv[1]), {"a": torch.zeros(10_000)}
for number, write in enumerate([
    lambda: save_file(values, out / "a.safetensors"),
    lambda: torch.save(values, out / "a.bin"),
    lambda: (out / "a.txt").write_text("a" * 10_000),
]):
    try:
        with output_errors(out):
            write()
    except OutputError as error:
        print(number, str(error).startswith(f"Can't write into {out} any more: "))
"""


def test_a_full_disk_is_an_error_that_says_so_whoever_writes(tmp_path):
    command = [sys.executable, "-c", SMALL_FILES_ONLY, str(tmp_path)]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.stdout.splitlines() == ["0 True", "1 True", "2 True"]


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), FileNotFoundError(2, "gone", "/elsewhere/a")])
def test_other_errors_stay_what_they_are(tmp_path, error):
    with pytest.raises(type(error), match=r"shapes|gone"), output_errors(tmp_path):
        raise error
    with pytest.raises(OutputError), output_errors(tmp_path):
        raise FileNotFoundError(2, "gone", str(tmp_path / "a"))
    with pytest.raises(SafetensorError), output_errors(tmp_path):
        raise SafetensorError("HeaderTooSmall")


def test_a_folder_is_held_until_its_process_ends(tmp_path):
    code = "from vico_eval.training.saving.files import held; from pathlib import Path; import time\n"
    code += f"with held(Path({str(tmp_path)!r})):\n print('held', flush=True); time.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "held\n"
        with (
            pytest.raises(OutputError, match=rf"process {other.pid} on .* since .*give this one another folder"),
            held(tmp_path),
        ):
            pass
    finally:
        other.kill()
        other.communicate()
    with held(tmp_path):
        assert f"process {os.getpid()}" in (tmp_path / LOCK).read_text()


def test_weights_between_stages_are_sound_or_named(tmp_path):
    path = tmp_path / "dense.safetensors"
    save_weights(nn.Linear(2, 1), path)
    whole = path.read_bytes()
    for content, reason in ((whole[:-4], "can't be read"), (bytes(len(whole)), "can't be read")):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=f"{reason}.* Run the stage dense again"):
            load_weights(nn.Linear(2, 1), path)
    save_file({"weight": torch.zeros(1, 2), "bias": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="only zeros"):
        load_weights(nn.Linear(2, 1), path)
    path.write_bytes(whole)
    with pytest.raises(CheckpointError, match="another recipe"):
        load_weights(nn.Linear(3, 1), path)


def test_a_threshold_of_scores_that_are_no_numbers_is_none(monkeypatch):
    monkeypatch.setattr("vico_eval.training.small.vico_tiny.calibrate.encode", lambda model, batch: torch.zeros(3))
    with pytest.raises(NotFinite, match="1 of the router's 3 scores"):
        absolute_threshold(None, [("read", None)], lambda *_: torch.tensor([0.5, float("nan"), 0.1]), 0.5)
