"""Models without weights, for processes that receive their shards from the first process (FSDP2)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import init_empty_weights
from torch import nn

from vico_eval.families.internvl.config import VicoInternVLConfig
from vico_eval.families.internvl.modeling import VicoInternVL


def blank_model(config: VicoInternVLConfig) -> VicoInternVL:
    """Build the float32 model that `load_model` would return, with its weights on `meta` and real buffers."""
    with init_empty_weights(include_buffers=False):
        model: VicoInternVL = VicoInternVL._from_config(config, dtype=torch.float32)  # type: ignore[no-untyped-call]
    model.tie_weights()  # each weight became another tensor when it was moved to `meta`
    return model


@contextmanager
def building(*, is_blank: bool) -> Iterator[None]:
    """Create new parts of a model with real weights, or on `meta` if `is_blank`."""
    if not is_blank:
        yield
        return
    with init_empty_weights(include_buffers=False):
        yield


def give_addresses(model: nn.Module) -> None:
    """Move weights from `meta` to the CPU, each with its own address but without memory for its values.

    Accelerate matches an optimizer's weights with their shards by address. On `meta` all addresses are 0, so every
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
