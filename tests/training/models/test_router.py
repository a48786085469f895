"""The router in training."""

import copy

import pytest
import torch
from torch.nn import functional as F

from vico_eval.families.internvl.router import GATING_DROPOUT, GatingBlock
from vico_eval.training.config import RouterConfig
from vico_eval.training.models.opening import add_router
from vico_eval.training.models.pair import PolicyAndReference, frozen_copy
from vico_eval.training.router import RouterInTraining


def test_a_gating_block_drops_twice_in_training():
    block = GatingBlock(16)
    hidden = torch.randn(64, 16)
    plain = hidden + block.norm(block.down(F.gelu(block.up(hidden))))
    assert torch.equal(block.eval()(hidden), plain)
    torch.manual_seed(3)
    dropped = F.dropout(block.down(F.dropout(F.gelu(block.up(hidden)), 0.1)), 0.1)
    torch.manual_seed(3)
    assert torch.equal(block.train()(hidden), hidden + block.norm(dropped))
    assert not torch.allclose(block(hidden), plain)


@pytest.fixture
def in_training(micro_model):
    def build(level="tile", **changes):
        policy = copy.deepcopy(micro_model)
        add_router(policy, level, **{"dropout": 0.1, **changes})
        policy.requires_grad_(False)
        return RouterInTraining(PolicyAndReference(policy, frozen_copy(micro_model, train_vision=False)), level, 1e-4)

    return build


@pytest.mark.parametrize("level", ["tile", "image"])
def test_the_router_alone_drops(in_training, level):
    trainee = in_training(level).train()
    others = [module for module in trainee.pair.modules() if module not in set(trainee.router.modules())]
    assert all(module.training for module in trainee.router.modules())
    assert not any(module.training for module in others)
    tokens = torch.randn(4, 1 + 16, trainee.router.query.shape[-1])
    assert not torch.equal(trainee.router(tokens), trainee.router(tokens))
    trainee.eval()
    assert torch.equal(trainee.router(tokens), trainee.router(tokens))


def test_a_router_without_dropout_gives_in_training_what_it_gives_later(in_training):
    trainee = in_training(dropout=0).train()
    tokens = torch.randn(4, 1 + 16, trainee.router.query.shape[-1])
    assert torch.equal(trainee.router(tokens), trainee.eval().router(tokens))


def test_the_default_is_that_of_the_released_class():
    assert RouterConfig.model_fields["router_dropout"].default == GATING_DROPOUT == 0.1
