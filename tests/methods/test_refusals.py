"""What a method can't do is said before a weight is read, whichever way it is asked for."""

import shutil

import pytest
from lmms_eval.models import MODEL_REGISTRY_V2
from safetensors.torch import load_file, save_file

import vico_eval
from vico_eval.errors import CheckpointError, ConfigError

KNOWN = "known are .*fastv.*sparsevlm.*vico"
RANGE = r"expected the share of visual tokens that stays, in \(0, 1\]. For the paper's R, pass 1 - R"

# The small model's decoder has 4 layers and 6 heads, so one layer in front of the cut is 0.25 of the average.
CASES = [
    ("fastv", {"layer": 0}, "layer=0; expected at least 1"),
    ("fastv", {"layer": 4}, "layer=4, but the decoder of .* has 4 layers.* Expected 1 to 3"),
    ("fastv", {"layer": 1.5}, "layer is 1.5; expected int"),
    ("fastv", {"keep_ratio": 0.0}, f"keep_ratio=0.0; {RANGE}"),
    ("fastv", {"keep_ratio": 1.25}, f"keep_ratio=1.25; {RANGE}"),
    ("fastv", {"keep_ratio": -0.5}, f"keep_ratio=-0.5; {RANGE}"),
    ("fastv", {"target_ratio": 0.5}, "can't reach target_ratio=0.5: 2 of 4 layers"),
    ("fastv", {"layer": 1, "target_ratio": 0.25}, "can't reach target_ratio=0.25: 1 of 4 layers"),
    ("sparsevlm", {"target_ratio": 0.25}, "can't reach target_ratio=0.25: 1 of 4 layers"),
    ("sparsevlm", {"variant": "rank", "target_ratio": 0.25}, "can't reach target_ratio=0.25: 1 of 4 layers"),
    ("sparsevlm", {"variant": "plus", "plus_heads": 3, "target_ratio": 0.2}, "can't reach target_ratio=0.2: 1 of 4"),
    ("sparsevlm", {"variant": "plus"}, "plus_heads=14 heads rate, but the decoder of .* has 6"),
    ("sparsevlm", {"layers": "0/1/3"}, "after layers 0/1/3, .* has 4 layers; expected 0 to 2"),
    ("sparsevlm", {"layers": 9, "keep_shares": 0.5, "target_ratio": 0.9}, "after layers 9, .*; expected 0 to 2"),
    ("sparsevlm", {"variant": "v2"}, "variant='v2'; expected one of topk, plus, rank"),
    ("sparsevlm", {"variant": "rank", "keep_shares": 0.5}, "rank takes no keep_shares"),
    ("fitprune", {}, "fitprune needs a recipe, .* recipe=llava"),
    ("fitprune", {"recipe": "llava", "reduction": 0.65}, "reduction=0.65; llava has recipes for 0.1, "),
    ("fitprune", {"recipe": "llava", "target_ratio": 0.2}, "can't reach target_ratio=0.2: .* at least 0.250"),
    ("dart", {"layer": 0}, "layer=0; expected at least 1"),
    ("dart", {"layer": 4}, "layer=4, but the decoder of .* has 4 layers.* Expected 1 to 3"),
    ("dart", {"target_ratio": 0.5}, "can't reach target_ratio=0.5: 2 of 4 layers"),
    ("pyramiddrop", {"layers": "1/2/4"}, "before layers 1/2/4, .* has 4 layers; expected distinct layers from 1 to 3"),
    ("pyramiddrop", {"target_ratio": 0.2}, "can't reach target_ratio=0.2: 1 of 4 layers.*at least 0.250"),
    ("fastv", {"budget": 192}, "unknown argument 'budget' for method 'fastv'.*; known are .*keep_ratio"),
    ("sparsevlm", {"keep_ratio": 0.5}, "unknown argument 'keep_ratio' for method 'sparsevlm'.*; known are .*budget"),
    ("vico", {"target_ratio": 0.55}, "unknown argument 'target_ratio' for method 'vico'.*; known are .*threshold"),
    ("vico+fastv", {"budget": 64}, r"unknown argument 'budget' for method 'vico\+fastv'.*; known are .*keep_ratio"),
    ("fastvv", {}, rf"unknown method 'fastvv' \(did you mean 'fastv'\?\); {KNOWN}"),
    ("vico+sparse", {}, f"unknown method 'sparse'.*; {KNOWN}"),
    ("fastv+sparsevlm", {}, "two parts in the decoder; expected at most one in each place"),
]


@pytest.fixture(scope="module")
def unloadable(untrained, tmp_path_factory):
    """A checkpoint that looks well until its weights are read: one has a row too few."""
    folder = tmp_path_factory.mktemp("unloadable") / "vico"
    shutil.copytree(untrained / "vico", folder)
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if name.endswith("mlp.down_proj.weight"))
    tensors[name] = tensors[name][1:].contiguous()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return str(folder)


def by_load(pretrained, method, arguments):
    vico_eval.load(pretrained, method=method, device="cpu", **arguments)


def by_lmms_eval(pretrained, method, arguments):
    model = MODEL_REGISTRY_V2.get_model_class("compressed_internvl")
    model(pretrained=pretrained, method=method, device="cpu", **arguments)


def by_lmms_evals_model_of_the_method(pretrained, method, arguments):
    model = MODEL_REGISTRY_V2.get_model_class(f"{method}_internvl")
    model(pretrained=pretrained, device="cpu", **arguments)


WAYS = [by_load, by_lmms_eval, by_lmms_evals_model_of_the_method]


@pytest.mark.parametrize("way", WAYS)
def test_without_a_mistake_the_weights_are_read_and_fail(unloadable, way):
    with pytest.raises(CheckpointError, match=r"mlp\.down_proj\.weight"):
        way(unloadable, "fastv", {"layer": 1})


@pytest.mark.parametrize("way", WAYS[:2])
@pytest.mark.parametrize(("method", "arguments", "message"), CASES)
def test_a_mistake_is_named_before_weights_are_read(unloadable, way, method, arguments, message):
    with pytest.raises(ConfigError, match=message):
        way(unloadable, method, arguments)


@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [case for case in CASES if case[0] in ("fastv", "sparsevlm")],
)
def test_also_by_the_model_class_of_the_method(unloadable, method, arguments, message):
    with pytest.raises(ConfigError, match=message):
        by_lmms_evals_model_of_the_method(unloadable, method, arguments)
