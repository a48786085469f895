import os

import pytest

from vico_eval import paths
from vico_eval.commands import inputs
from vico_eval.commands.inputs import fingerprint, local_checkpoints
from vico_eval.commands.plan import PlannedRun
from vico_eval.errors import CheckpointError


def planned(*checkpoints):
    return PlannedRun(
        name="n", system="s", title="t", folder=paths.models_dir(), cells=(), arguments=(), checkpoints=checkpoints
    )


def test_only_the_checkpoints_of_the_chosen_rows_are_asked_for():
    folders = local_checkpoints([planned("vico-tiny-base"), planned("vico-tiny-base", "vico-tiny")], "train")
    assert [folder.name for folder in folders] == ["vico-tiny-base", "vico-tiny"]


def test_a_hub_id_has_no_folder_and_a_folder_is_its_own(tmp_path):
    assert local_checkpoints([planned("OpenGVLab/InternVL3_5-8B", str(tmp_path))], None) == [tmp_path]


def test_a_checkpoint_that_is_not_trained_yet_comes_with_the_command_that_trains_it():
    with pytest.raises(CheckpointError, match=r"no finished checkpoint tiny-x\. Train it \(`vico-eval train x`\)"):
        local_checkpoints([planned("vico-tiny-base"), planned("tiny-x")], "vico-eval train x")


def test_the_fingerprint_sees_names_and_bytes_but_no_caches(tmp_path):
    (tmp_path / "a.py").write_text("1")
    before = fingerprint([tmp_path])
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "a.pyc").write_text("2")
    assert fingerprint([tmp_path]) == before
    (tmp_path / "a.py").write_text("2")
    changed = fingerprint([tmp_path])
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    assert len({before, changed, fingerprint([tmp_path])}) == 3


def test_weights_of_gigabytes_are_not_read_for_it(tmp_path, monkeypatch):
    monkeypatch.setattr(inputs, "_HASHED_BYTES", 3)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"1234")
    before = fingerprint([weights])
    state = weights.stat()
    weights.write_bytes(b"4321")
    os.utime(weights, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert fingerprint([weights]) == before
    os.utime(weights, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    assert fingerprint([weights]) != before
