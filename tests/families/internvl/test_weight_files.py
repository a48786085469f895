"""Pickled weights are read only where the caller says so, and then as plain tensors."""

import json
from pathlib import Path

import pytest
import torch

from vico_eval.errors import CheckpointError
from vico_eval.families.internvl.checkpoint import find_checkpoint, load_model
from vico_eval.families.internvl.donor import adopt
from vico_eval.families.weight_files import find_weights


@pytest.fixture
def pickled(flash, tmp_path):
    """Writes the Flash checkpoint with its weights in one `.bin` file or in several."""

    def write(num_shards=1):
        (tmp_path / "config.json").write_text((flash.folder / "config.json").read_text())
        names, weight_map = sorted(flash.tensors), {}
        for shard in range(num_shards):
            file = "pytorch_model.bin" if num_shards == 1 else f"pytorch_model-0000{shard + 1}-of-0000{num_shards}.bin"
            part = {name: flash.tensors[name].detach().clone() for name in names[shard::num_shards]}
            torch.save(part, tmp_path / file)
            weight_map |= dict.fromkeys(part, file)
        if num_shards > 1:
            (tmp_path / "pytorch_model.bin.index.json").write_text(
                json.dumps({"metadata": {}, "weight_map": weight_map})
            )
        return str(tmp_path)

    return write


@pytest.mark.parametrize("num_shards", [1, 3])
def test_they_load_as_safetensors_do(flash, pickled, num_shards):
    folder = pickled(num_shards)
    with pytest.raises(CheckpointError, match=r"pickled weights \(\.bin\), which are not read.*pass allow_pickle=true"):
        find_checkpoint(folder)
    found = load_model(find_checkpoint(folder, allow_pickle=True)).state_dict()
    expected = load_model(find_checkpoint(str(flash.folder))).state_dict()
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def test_as_a_donor(flash, layouts, pickled, tmp_path_factory):
    plain = tmp_path_factory.mktemp("plain")
    layouts.build_released(plain, "qwen3", seed=5)
    donor = find_checkpoint(pickled(3), allow_pickle=True)
    model = load_model(find_checkpoint(str(plain)))
    adopt(model, donor)
    assert torch.equal(model.connector_low.linear_1.weight, flash.tensors["mlp2.1.weight"])


def test_safetensors_win(flash, pickled):
    folder = Path(pickled())
    (folder / "model.safetensors").write_bytes((flash.folder / "model.safetensors").read_bytes())
    weights = find_weights(folder, allow_pickle=True)
    assert {file.name for file in weights.values()} == {"model.safetensors"}


class Opens:
    """Would write a file when unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def test_code_in_a_pickle_is_not_run(pickled, tmp_path):
    folder = Path(pickled())
    torch.save({"mlp1.0.weight": Opens(tmp_path / "written")}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin can't be read as pickled tensors"):
        find_checkpoint(str(folder), allow_pickle=True)
    assert not (tmp_path / "written").exists()


@pytest.mark.parametrize("content", ["half", "empty"])
def test_a_truncated_file(pickled, content):
    folder = Path(pickled())
    file = folder / "pytorch_model.bin"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if content == "half" else b"")
    with pytest.raises(
        CheckpointError, match=r"pytorch_model\.bin can't be read as pickled tensors.*Download it again"
    ):
        find_checkpoint(str(folder), allow_pickle=True)


def test_something_else_than_tensors(pickled):
    folder = Path(pickled())
    torch.save({"state_dict": {"a": torch.zeros(1)}}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="contains something other than named tensors"):
        find_checkpoint(str(folder), allow_pickle=True)


def test_a_missing_shard(pickled):
    folder = Path(pickled(3))
    (folder / "pytorch_model-00002-of-00003.bin").unlink()
    with pytest.raises(CheckpointError, match=r"incomplete checkpoint: 1 of the 3 .*pytorch_model-00002-of-00003\.bin"):
        find_checkpoint(str(folder), allow_pickle=True)


def test_pickles_of_another_name(pickled):
    folder = Path(pickled())
    (folder / "pytorch_model.bin").rename(folder / "optimizer.bin")
    with pytest.raises(CheckpointError, match=r"has no weights.*As pickled weights: pytorch_model\.bin, or"):
        find_checkpoint(str(folder), allow_pickle=True)


def test_an_index_of_safetensors_that_names_a_pickle(pickled):
    folder = pickled()
    weights = {"weight_map": {"language_model.lm_head.weight": "pytorch_model.bin"}}
    (Path(folder) / "model.safetensors.index.json").write_text(json.dumps(weights))
    with pytest.raises(CheckpointError, match=r"names files that are not safetensors: pytorch_model\.bin"):
        find_checkpoint(str(folder))
