"""NaN and infinity are no answers: the document is named, and those beside it are answered as ever."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from vico_eval.engine.engine import Engine
from vico_eval.engine.loading import open_engine
from vico_eval.engine.requests import GenerationSettings, ImageInput, Message, Request, Text
from vico_eval.errors import DocumentError
from vico_eval.runs.schema import TokenAccount

WAYS = {"greedy": {}, "beams": {"num_beams": 2}, "sampling": {"do_sample": True}}
NAN, INF = float("nan"), float("inf")


def ask(number, **settings):
    pixels = np.random.default_rng(number).integers(0, 255, (56, 56 * (number + 1), 3), dtype=np.uint8)
    message = Message("user", (ImageInput(Image.fromarray(pixels)), Text("Which?")))
    return Request(f"mixed/test/{number}", (message,), generation=GenerationSettings(max_new_tokens=4, **settings))


@pytest.fixture(scope="module")
def open_one(untrained):
    def make(pretrained="vico", **arguments) -> Engine:
        given = {"pretrained": str(untrained / pretrained), "device": "cpu", "batch_size": 3, **arguments}
        return open_engine(given, show_progress=False).engine

    return make


@pytest.fixture(scope="module")
def engine(open_one):
    return open_one()


def spoil(engine, at, value):
    """The logits `at` (rows, places) of the longest prompt in every prefill; returns what undoes it."""
    longest = len(engine.rows[0].prompt(engine.rows[0].ready([engine.preprocessor(ask(2))])[0]).input_ids)

    def after(_, __, keywords, output):
        embeddings = keywords.get("inputs_embeds")
        if embeddings is not None and embeddings.shape[1] == longest:
            is_it = keywords["position_ids"][:, -1] == longest - 1
            output.logits[torch.where(is_it)[0][:, None], -1, at] = value
        return output

    return engine.model.language_model.register_forward_hook(after, with_kwargs=True)


@pytest.mark.parametrize("settings", WAYS.values(), ids=WAYS)
@torch.inference_mode()
def test_the_document_is_named_and_its_neighbours_are_answered(engine, settings, same_answers):
    requests = [ask(number, **settings) for number in range(3)]
    expected = engine.answer(requests)
    hook = spoil(engine, slice(3, 5), NAN)
    outcomes = dict(engine.outcomes(requests))
    hook.remove()
    assert isinstance(outcomes[2], DocumentError)
    assert "document mixed/test/2 failed twice" in str(outcomes[2])
    assert "the logits of mixed/test/2 are not finite (NaN or infinite)" in str(outcomes[2])
    assert same_answers([outcomes[0], outcomes[1]], expected[:2])


@pytest.mark.parametrize(
    ("places", "value", "is_right"), [(slice(3, 4), INF, False), (slice(None), -INF, False), (slice(3, 4), -INF, True)]
)
@pytest.mark.parametrize("settings", [WAYS["greedy"], WAYS["beams"]], ids=["greedy", "beams"])
@torch.inference_mode()
def test_minus_infinity_for_some_tokens_is_right_and_nothing_else(engine, places, value, is_right, settings):
    hook = spoil(engine, places, value)
    ((_, outcome),) = engine.outcomes([ask(2, **settings)])
    hook.remove()
    assert isinstance(outcome, DocumentError) != is_right


def test_nothing_more_is_generated_behind_a_token_that_is_none(engine):
    steps = []
    hook = spoil(engine, slice(None), NAN)
    counter = engine.model.language_model.register_forward_hook(lambda *_: steps.append(1))
    with pytest.raises(DocumentError):
        engine.answer([ask(2)])
    hook.remove()
    counter.remove()
    assert len(steps) == 2  # both tries


@pytest.fixture(scope="module")
def broken(untrained, tmp_path_factory):
    """Writes a checkpoint with a NaN in every tensor whose name begins so."""

    def write(prefix):
        folder = shutil.copytree(untrained / "vico", tmp_path_factory.mktemp("broken") / "vico")
        tensors = load_file(folder / "model.safetensors")
        for name in [name for name in tensors if name.startswith(prefix)]:
            tensors[name].flatten()[0] = NAN
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        return str(folder)

    return write


@pytest.mark.parametrize(
    "prefix", ["language_model.model.layers.1.", "vision_tower.encoder.layer.0", "connector_high."]
)
def test_weights_that_are_nan_answer_nothing(open_one, broken, prefix):
    engine = open_one(broken(prefix))
    outcomes = [outcome for _, outcome in engine.outcomes([ask(number) for number in range(3)])]
    assert all(isinstance(outcome, DocumentError) for outcome in outcomes)
    assert all("are not finite" in str(outcome) for outcome in outcomes)


def test_a_router_that_is_nan_compresses_nothing_and_keeps_nothing(open_one, broken):
    engine = open_one(broken("router."), method="vico")
    for call in (lambda: engine.answer([ask(0)]), lambda: engine.routing(ask(0))):
        with pytest.raises(DocumentError, match=r"mixed/test/0 .*the router's scores of mixed/test/0 are not finite"):
            call()


METHODS = {
    "fastv": {"keep_ratio": 0.5},
    "sparsevlm": {"layers": "0/1", "keep_shares": "0.5/0.3"},
    "pyramiddrop": {"layers": "1/2", "shares": "0.5/0.3"},
    "fitprune": {"recipe": "llava"},
}


@pytest.mark.parametrize("method", METHODS)
def test_tokens_are_not_chosen_by_attention_that_is_nan(open_one, method, monkeypatch):
    engine = open_one("base", method=method, **METHODS[method])
    assert engine.answer([ask(2)])[0].account.visual_tokens_per_layer[-1] < 64
    # As where queries overflow: the layer's own kernel may still give numbers.
    monkeypatch.setattr(engine.model.language_model.model.layers[0].self_attn, "scaling", INF)
    monkeypatch.setattr(engine.model.language_model.model.layers[1].self_attn, "scaling", INF)
    with pytest.raises(DocumentError, match=r"the attention of mixed/test/2 before layer \d is NaN or infinite"):
        engine.answer([ask(2)])


@pytest.mark.parametrize("score", [NAN, INF, -0.1, 1.1])
def test_an_account_has_probabilities_only(score):
    counts = dict.fromkeys(("tiles", "compressed_tiles", "visual_tokens", "visual_tokens_uncompressed"), 1)
    counts |= {"visual_tokens_per_layer": (1,), "text_tokens": 1, "generated_tokens": 1}
    assert TokenAccount(**counts, p_compress=(0.0, 1.0)).to_dict()["p_compress"] == [0.0, 1.0]
    with pytest.raises(ValueError, match=r"p_compress\.1"):
        TokenAccount(**counts, p_compress=(0.5, score))
