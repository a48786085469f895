"""To a checkpoint's digest every byte of every tensor counts, and nothing else."""

import torch
from safetensors.torch import save_file

from vico_eval.families.weight_digest import weights_digest


def weights(**changes):
    generator = torch.Generator().manual_seed(0)
    return {
        "first": torch.randn(3, 5, generator=generator),
        "half": torch.randn(4, generator=generator).bfloat16(),
        "scale": torch.tensor(0.5),
        "none": torch.zeros(0, 7),
        "last": torch.randn(2, 2, generator=generator),
    } | changes


def digest(folder, tensors, name="model.safetensors"):
    save_file(tensors, folder / name)
    return weights_digest([folder / name])


def test_files_do_not_count_and_neither_does_their_kind(tmp_path):
    tensors = weights()
    whole = digest(tmp_path, tensors)
    names = sorted(tensors)
    for number, part in enumerate((names[:2], names[2:])):
        save_file({name: tensors[name] for name in part}, tmp_path / f"{number}.safetensors", metadata={"made": "x"})
    assert weights_digest([tmp_path / "1.safetensors", tmp_path / "0.safetensors"]) == whole
    torch.save(tensors | {"first": tensors["first"].T.contiguous().T}, tmp_path / "pytorch_model.bin")
    assert weights_digest([tmp_path / "pytorch_model.bin"]) == whole


def test_name_dtype_shape_and_every_byte_count(tmp_path):
    tensors = weights()
    others = [
        weights(half=tensors["half"].float()),
        weights(half=tensors["half"].reshape(2, 2)),
        weights(scale=tensors["scale"].reshape(1)),
        weights(none=torch.zeros(7, 0)),
        {name: tensor for name, tensor in tensors.items() if name != "none"},
        {f"{name}s": tensor for name, tensor in tensors.items()},
        weights(first=tensors["last"], last=tensors["first"]),
    ]
    for place in range(15):
        changed = tensors["first"].clone()
        changed.view(-1)[place] += 1e-6
        others.append(weights(first=changed))
    found = {digest(tmp_path, tensors), *(digest(tmp_path, other) for other in others)}
    assert len(found) == 1 + len(others)


def test_a_change_in_the_middle_of_a_large_file_counts(tmp_path):
    # 12 MiB: both ends of 4 MiB stay the same, as they do when an adapter is merged into some projections.
    large = torch.zeros(3, 1 << 20)
    before = digest(tmp_path, {"weight": large})
    large[1, 5] = 1
    assert digest(tmp_path, {"weight": large}) != before
