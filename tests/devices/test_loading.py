"""Weights go from their files to their device one by one, so that a host never holds a whole model."""

import gc

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from vico_eval.families.internvl.checkpoint import find_checkpoint, load_model
from vico_eval.families.internvl.donor import adopt

from .emulation import ACCELERATOR, emulated


def bytes_on_host() -> int:
    """Of all parameters that are alive and lie on the CPU."""
    alive = (entry for entry in gc.get_objects() if type(entry) is torch.nn.Parameter)
    return sum(weight.nbytes for weight in alive if weight.device.type == "cpu")


class WeightsOnHost(TorchFunctionMode):
    """Looks, at every hundredth tensor that is brought elsewhere, what lies on the CPU, and keeps the most."""

    calls = most = 0

    def __torch_function__(self, function, types, arguments=(), named=None):
        if function is Tensor.to:
            self.calls += 1
            if self.calls % 100 == 0:
                self.most = max(self.most, bytes_on_host())
        return function(*arguments, **(named or {}))


def test_no_weight_stays_on_the_host(untrained, weights_are_read_in_this_thread):
    gc.collect()
    base, donor = (find_checkpoint(str(untrained / name)) for name in ("base", "vico"))
    with emulated(), WeightsOnHost() as host:
        before = bytes_on_host()
        model = load_model(base, device=ACCELERATOR)
        adopt(model, donor)
    weights = list(model.parameters())
    assert {str(weight.device) for weight in weights} == {ACCELERATOR}
    assert {str(buffer.device) for buffer in model.buffers()} == {ACCELERATOR}
    assert host.calls > 300
    assert host.most - before < 0.02 * sum(weight.nbytes for weight in weights)
