"""The second optimizer: what it does to one matrix, and which parameters it gets."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vico_eval.training.small.loop import ParameterGroup, optimizing
from vico_eval.training.small.muon import Muon, orthogonalise
from vico_eval.training.small.recipe import Schedule


@pytest.mark.parametrize("shape", [(6, 16), (16, 6)])
def test_singular_values_become_nearly_one_and_directions_stay(shape):
    matrices = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    result = orthogonalise(matrices)
    # Five iterations of the quintic end between 0.68 and 1.14.
    values = torch.linalg.svdvals(result)
    assert values.min() > 0.6
    assert values.max() < 1.2
    # U V^T of the matrix itself: the same directions with every singular value at 1.
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    cosine = torch.nn.functional.cosine_similarity(result.flatten(1), (u @ v).flatten(1))
    assert cosine.min() > 0.98


def test_an_update_is_as_large_as_adamws_and_decay_is_decoupled():
    parameter = nn.Parameter(torch.full((8, 32), 0.5))
    parameter.grad = torch.randn(8, 32, generator=torch.Generator().manual_seed(0))
    optimizer = Muon([parameter], weight_decay=0.1)
    optimizer.param_groups[0]["lr"] = 0.01
    optimizer.step()
    update = (0.5 * (1 - 0.01 * 0.1) - parameter.detach()) / 0.01
    # An orthogonal 8 x 32 matrix has entries of RMS sqrt(1 / 32), times 0.2 sqrt(32): 0.2 as AdamW's usually are.
    assert update.square().mean().sqrt() == pytest.approx(0.2, abs=0.03)


def test_only_matrices_inside_decoder_layers_go_to_muon():
    inside = nn.ModuleDict({"layers": nn.ModuleList([nn.Linear(3, 4)]), "head": nn.Linear(4, 2)})
    module = nn.ModuleDict({"language": inside})
    schedule = Schedule(steps=1, learning_rate=0.1, optimizer="muon")
    adamw, muon = optimizing([ParameterGroup("all", module, 0.5)], schedule).optimizers
    assert [p.shape for p in muon.param_groups[0]["params"]] == [(4, 3)]
    assert [p.shape for p in adamw.param_groups[0]["params"]] == [(4,), (2, 4), (2,)]
    assert muon.param_groups[0]["initial_lr"] == 0.1 * 0.5
    assert len(optimizing([ParameterGroup("all", module)], Schedule(steps=1, learning_rate=0.1)).optimizers) == 1
