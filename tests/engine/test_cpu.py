"""On a CPU the engine computes faster, and the same."""

import ctypes
import platform
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from vico_eval.engine import cpu
from vico_eval.engine.cpu import PackedLinear, pack_linears
from vico_eval.engine.loading import open_engine

has_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="PyTorch was built without oneDNN")
has_gain = pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() != "AVX512" or not torch.backends.mkldnn.is_available(),
    reason="nothing is packed on this processor",
)


@pytest.fixture
def everywhere(monkeypatch):
    """Packing on any processor."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")


@has_onednn
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(7,), (1, 7), (40, 7), (0, 7), (20, 3, 7)])
@torch.inference_mode()
def test_a_packed_layer_computes_what_the_plain_one_does(bias, shape):
    torch.manual_seed(0)
    plain = nn.Linear(7, 4, bias=bias)
    inputs = torch.randn(shape)
    torch.testing.assert_close(PackedLinear(plain)(inputs), plain(inputs), atol=1e-6, rtol=1e-6)


@has_onednn
@pytest.mark.parametrize("size", [7, 600])
@torch.inference_mode()
def test_a_small_layer_takes_the_plain_product_for_few_rows(size, monkeypatch):
    """The other has a cost of its own, and a large one's weights are not kept twice."""
    layer = PackedLinear(nn.Linear(size, size))
    taken = []
    monkeypatch.setattr(cpu.F, "linear", lambda *given: taken.append(given[0].shape) or torch.zeros(()))
    for rows in (1, 15, 16, 200):
        layer(torch.zeros(rows, size))
    assert taken == ([(1, 7), (15, 7)] if size == 7 else [])
    assert (layer.plain is None) == (size == 600)


@has_onednn
@torch.inference_mode()
def test_inputs_may_have_gaps():
    torch.manual_seed(0)
    plain = nn.Linear(6, 4)
    inputs = torch.randn(3, 6, 15).transpose(1, 2)[:, 1:]
    torch.testing.assert_close(PackedLinear(plain)(inputs), plain(inputs), atol=1e-6, rtol=1e-6)


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(9, 8)
        self.body = nn.Sequential(nn.Linear(8, 8), nn.MultiheadAttention(8, 2))
        self.half = nn.Linear(8, 8, dtype=torch.bfloat16)
        self.head = nn.Linear(8, 9, bias=False)
        self.head.weight = self.embedding.weight


@has_onednn
def test_only_what_gains_is_packed_and_weights_can_still_be_saved(everywhere):
    model = Small()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    pack_linears(model)
    packed = [name for name, module in model.named_modules() if isinstance(module, PackedLinear)]
    assert packed == ["body.0"]
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_elsewhere_nothing_changes(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    model = Small()
    pack_linears(model)
    assert not any(isinstance(module, PackedLinear) for module in model.modules())


@has_gain
def test_the_engine_packs_vision_encoder_connectors_and_decoder():
    model = open_engine(
        {"pretrained": "vico-tiny", "method": "vico", "device": "cpu"}, show_progress=False
    ).engine.model
    left = [name for name, module in model.named_modules() if type(module) is nn.Linear]
    assert left == ["language_model.lm_head"]  # tied to the embeddings
    for part in (model.vision_tower, model.connector_high, model.connector_low, model.language_model.model):
        assert any(isinstance(module, PackedLinear) for module in part.modules())


@has_gain
def test_in_other_types_nothing_is_packed():
    arguments = {"pretrained": "vico-tiny", "device": "cpu", "dtype": "bfloat16"}
    model = open_engine(arguments, show_progress=False).engine.model
    assert not any(isinstance(module, PackedLinear) for module in model.modules())


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to keep memory")
def test_glibc_takes_both_settings(monkeypatch):
    mallopt, taken = ctypes.CDLL(None).mallopt, {}

    def noted(parameter, value):
        taken[parameter] = value
        assert mallopt(parameter, value) == 1

    monkeypatch.setattr(cpu.ctypes, "CDLL", lambda _: SimpleNamespace(mallopt=noted))
    cpu.keep_freed_memory()
    assert taken == {-1: 2**30, -3: 2**25}  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD


def test_other_libraries_are_left_alone(monkeypatch):
    monkeypatch.setattr(cpu.ctypes, "CDLL", lambda _: SimpleNamespace())
    cpu.keep_freed_memory()
    monkeypatch.setattr(cpu.ctypes, "CDLL", None)
    monkeypatch.setattr(cpu.sys, "platform", "darwin")
    cpu.keep_freed_memory()
