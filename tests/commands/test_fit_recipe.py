"""`vico-eval fit-recipe`: recipes of a file's samples, for `recipe=`."""

import json
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from vico_eval.commands.work.fit_recipe import widths_of
from vico_eval.engine.model import load
from vico_eval.methods.shared.fitprune_recipes import read_recipes


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """Three pictures of one to three tiles, the last in a conversation of two turns."""
    folder = tmp_path_factory.mktemp("samples")
    lines = []
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 255, (56, 56 * (number + 1), 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        turns = [{"from": "human", "value": "<image>\nWhat is this?"}, {"from": "gpt", "value": "A picture."}]
        lines.append({"image": f"{number}.png", "conversations": turns})
    lines[2]["conversations"] += [{"from": "human", "value": "Sure?"}, {"from": "gpt", "value": "Yes."}]
    (folder / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder / "samples.jsonl"


@pytest.fixture
def fit(run, samples, untrained):
    base = str(untrained / "base")
    return partial(run, "fit-recipe", samples, "--root", samples.parent, "--checkpoint", base)


def test_recipes_of_a_checkpoint_can_be_used_with_it(fit, tmp_path, untrained, samples):
    out = tmp_path / "recipes.json"
    status, printed, err = fit("--reductions", "0.3,0.5", "--model-args", "device=cpu,batch_size=2", "--out", out)
    assert status == 0, err
    file = read_recipes(out)
    # 16 tokens a tile, and a thumbnail where there are several: 16, 48 and 64
    assert (file.num_layers, file.num_visual, file.num_samples) == (4, 42, 3)
    assert [recipe.reduction for recipe in file.recipes] == [0.3, 0.5]
    left = [42 - sum(recipe.leave) for recipe in file.recipes]
    assert left[1] < left[0] < 42
    assert f"0.5: {left[1]} of 42 are left" in printed
    model = load(str(untrained / "base"), "fitprune", device="cpu", recipe=str(out), reduction=0.5)
    account = model.ask("What?", images=[samples.parent / "2.png"], max_new_tokens=1).account
    assert account.visual_tokens_per_layer == file.by_reduction[0.5].counts(64)


def test_the_recipe_does_not_depend_on_the_batch(fit, tmp_path):
    found = []
    for size in (1, 3):
        out = tmp_path / f"{size}.json"
        assert fit("--model-args", f"device=cpu,batch_size={size}", "--out", out)[0] == 0
        found.append(out.read_text())
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--reductions", "60"), "--reductions got '60'; expected shares between 0 and 1"),
        (("--reductions", "half"), "--reductions got 'half'"),
        (("--model-args", "method=vico"), "--model-args has method"),
        (("--model-args", "tile=2"), "unknown argument 'tile'"),
        (("--out", "recipes.yaml"), "--out got recipes.yaml; expected a file that ends in .json"),
        (("--reductions", "0.999", "--model-args", "device=cpu"), "no recipe saves 0.999 of the operations"),
    ],
)
def test_what_can_not_be_searched_is_said(fit, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    status, out, err = fit(*options)
    assert (status, out) == (1, "")
    assert message in err
    assert list(tmp_path.iterdir()) == []


def test_a_sample_without_a_picture_is_named(run, tmp_path, untrained):
    line = {"conversations": [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "That."}]}
    (tmp_path / "text.jsonl").write_text(json.dumps(line) + "\n")
    status, _, err = run("fit-recipe", tmp_path / "text.jsonl", "--checkpoint", untrained / "base")
    assert status == 1
    assert "text.jsonl:1 has no image" in err


def test_a_token_of_a_mixture_goes_through_some_experts():
    dense = SimpleNamespace(hidden_size=8, intermediate_size=24)
    assert widths_of(dense) == (8, 24)
    mixture = SimpleNamespace(hidden_size=8, intermediate_size=24, num_experts_per_tok=2, moe_intermediate_size=6)
    assert widths_of(mixture) == (8, 12)
