"""Which checkpoints stay, and which are taken."""

import json
import math
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from vico_eval.errors import CheckpointError
from vico_eval.training.config import Saving
from vico_eval.training.saving.checkpoints import Checkpoints, differences


@pytest.mark.parametrize("unknown", [None, math.nan])
def test_a_loss_that_nobody_knows_is_never_the_best(tmp_path, unknown):
    checkpoints = Checkpoints(tmp_path, Saving(keep_best=1), {})
    for step, held_out in enumerate((unknown, 2.0, unknown, 1.0, unknown, 3.0, unknown)):
        checkpoints.path(step).mkdir()
        checkpoints.finish(step, held_out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-0000003", "step-0000005", "step-0000006"]


def test_a_folder_without_progress_does_not_count(tmp_path):
    checkpoints = Checkpoints(tmp_path, Saving(), {})
    for step in (1, 2):
        checkpoints.path(step).mkdir()
    checkpoints.finish(1, 0.5)
    assert [path.name for path in checkpoints.path(1).iterdir()] == ["progress.json"]
    checkpoints.path(2).mkdir()
    (checkpoints.path(2) / "progress.json.unfinished").write_text(json.dumps({"step": 2})[:5])
    newest = checkpoints.newest()
    assert newest is not None
    assert newest.step == 1


@pytest.fixture
def saved(tmp_path):
    """Checkpoints of steps 1, 2 and 3, of which the last two stay."""
    checkpoints = Checkpoints(tmp_path, Saving(keep_best=0), {})
    for step in (1, 2, 3):
        folder = checkpoints.path(step)
        (folder / "model").mkdir(parents=True)
        save_file({"a": torch.full((64,), float(step))}, folder / "trained.safetensors")
        torch.save({"state": torch.ones(64)}, folder / "optimizer.bin")
        (folder / "model" / "shard").write_bytes(bytes(range(64)))
        (folder / "state.rank0.json").write_text('{"a": 1}')
        checkpoints.finish(step, None)
    return checkpoints


def cut(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def fill_with_zeros(file):
    file.write_bytes(bytes(file.stat().st_size))


def fill_the_end_with_zeros(file):
    content = file.read_bytes()
    kept = 2 * len(content) // 3
    file.write_bytes(content[:kept] + bytes(len(content) - kept))


@pytest.mark.parametrize("tear", [cut, fill_with_zeros, fill_the_end_with_zeros, lambda file: file.unlink()])
@pytest.mark.parametrize(
    "name", ["trained.safetensors", "optimizer.bin", "model/shard", "state.rank0.json", "progress.json"]
)
def test_a_torn_checkpoint_is_set_aside_and_named(saved, tear, name):
    if name == "progress.json" and tear.__name__ == "<lambda>":
        pytest.skip("a checkpoint without it was never finished")
    tear(saved.path(3) / name)
    told = []
    assert saved.newest(told.append).step == 2
    (message,) = told
    assert name in message
    assert "set aside as torn-step-0000003-1" in message
    assert saved.newest().step == 2
    saved.path(3).mkdir()
    saved.finish(3, None)
    assert saved.newest().step == 3
    assert (saved.folder / "torn-step-0000003-1").is_dir()


def test_where_all_are_torn_nothing_is_set_aside_and_nothing_begins_anew(saved):
    for step in (2, 3):
        cut(saved.path(step) / "optimizer.bin")
    for _ in range(2):
        with pytest.raises(CheckpointError, match=r"step-0000003: optimizer\.bin has .*; step-0000002: .*start over"):
            saved.newest()


def test_a_checkpoint_that_lists_no_files_is_looked_at_as_far_as_can_be(saved):
    """Those of earlier versions."""

    def forget(step):
        path = saved.path(step) / "progress.json"
        values = json.loads(path.read_text())
        path.write_text(json.dumps({name: values[name] for name in ("step", "held_out", "config")}))

    forget(2)
    forget(3)
    assert saved.newest().step == 3
    trained = saved.path(3) / "trained.safetensors"
    for weights, reason in (([math.nan], "contains NaN or infinity"), ([0.0], "only zeros")):
        save_file({"a": torch.tensor(weights * 64)}, trained)
        told = []
        saved.newest(told.append)
        assert reason in told[0]
        (saved.folder / "torn-step-0000003-1").rename(saved.path(3))
    save_file({"a": torch.ones(64)}, trained)
    with zipfile.ZipFile(saved.path(3) / "optimizer.bin") as archive:
        last = max(one.header_offset for one in archive.infolist() if one.file_size == 256)
    content = bytearray((saved.path(3) / "optimizer.bin").read_bytes())
    content[last + 100 : last + 300] = bytes(200)
    (saved.path(3) / "optimizer.bin").write_bytes(content)
    assert saved.newest().step == 2


INPUTS = [{"name": "a", "samples": 3, "sha256": "x", "pictures": None}, {"name": "b", "samples": 1, "sha256": "y"}]


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (INPUTS, []),
        (INPUTS[:1], ["b is gone"]),
        ([*INPUTS, {"name": "c"}], ["c is new"]),
        (INPUTS[::-1], ["the sources are in another order"]),
        ([INPUTS[0] | {"samples": 2, "sha256": "z"}, INPUTS[1]], ["a had 3 samples and has 2"]),
        ([INPUTS[0] | {"sha256": "z", "pictures": "p"}, INPUTS[1]], ["a has different content and media"]),
    ],
)
def test_what_has_changed_is_named(now, said):
    assert list(differences(INPUTS, now)) == said


def test_checkpoints_are_of_the_same_inputs(tmp_path):
    checkpoints = Checkpoints(tmp_path, Saving(), {}, INPUTS)
    checkpoints.path(1).mkdir()
    checkpoints.finish(1, math.nan)
    assert "NaN" not in (checkpoints.path(1) / "progress.json").read_text()
    assert Checkpoints(tmp_path, Saving(), {}, INPUTS).newest().step == 1
    with pytest.raises(CheckpointError, match=r"changed since its step 1: b is gone\. Restore them"):
        Checkpoints(tmp_path, Saving(), {}, INPUTS[:1]).newest()
