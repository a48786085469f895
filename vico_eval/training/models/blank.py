"""Models without weights, for processes that receive their shards of them from the first one (FSDP2)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import init_empty_weights
from torch import nn

from vico_eval.families.internvl.config import VicoInternVLConfig
from vico_eval.families.internvl.modeling import VicoInternVL


def blank_model(config: VicoInternVLConfig) -> VicoInternVL:
    """What `load_model` would make of a checkpoint in float32, with its weights on `meta`; its buffers are real."""
    with init_empty_weights(include_buffers=False):
        model: VicoInternVL = VicoInternVL._from_config(config, dtype=torch.float32)  # type: ignore[no-untyped-call]
    model.tie_weights()  # each weight became another tensor when it was moved to `meta`
    return model


@contextmanager
def building(*, is_blank: bool) -> Iterator[None]:
    """New parts of a model get weights inside, or, `is_blank`, weights on `meta`."""
    if not is_blank:
        yield
        return
    with init_empty_weights(include_buffers=False):
        yield


def give_addresses(model: nn.Module) -> None:
    """Put weights that are on `meta` on the CPU, each with an address of its own and no memory behind it.

    Accelerate finds the shards of an optimizer's weights by the weights' addresses. On `meta` all are 0, and every
    weight of the optimizer would become the model's last one.
    """
    placed: dict[nn.Parameter, nn.Parameter] = {}
    for module in model.modules():
        for name, weight in module.named_parameters(recurse=False):
            if weight.is_meta and weight not in placed:
                number = torch.empty((), dtype=weight.dtype)
                placed[weight] = nn.Parameter(number.expand(weight.shape), requires_grad=weight.requires_grad)
            if weight in placed:
                setattr(module, name, placed[weight])
