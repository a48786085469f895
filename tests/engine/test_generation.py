"""An answer is the model's own: no neighbour in its batch, no setting of the checkpoint and no padding changes it."""

import json
import math
import shutil
from collections import Counter

import numpy as np
import pytest
import torch
from loguru import logger
from PIL import Image

from vico_eval.engine.engine import Engine
from vico_eval.engine.generation import DrawnToken, FirstLogits
from vico_eval.engine.loading import open_engine
from vico_eval.engine.requests import GenerationSettings, ImageInput, Message, Request, Text
from vico_eval.errors import ConfigError

# The random model says its last token again and again, so only large penalties change its answers.
SETTINGS = {
    "greedy": {},
    "penalty": {"repetition_penalty": 30.0},
    "reward": {"repetition_penalty": 0.5},
    "beams": {"num_beams": 3},
    "beams with penalty": {"num_beams": 2, "repetition_penalty": 30},
    "sampling": {"do_sample": True, "temperature": 4},
    "sampling with all there is": {"do_sample": True, "temperature": 6.0, "top_k": 9, "top_p": 0.9, "seed": 7},
    "stop strings": {"repetition_penalty": 30.0, "until": ("a", "e", "q")},
}
METHODS = ("vanilla", "vico+fastv")


def ask(number, **settings):
    """Requests of very different lengths: no picture, or one of up to seven tiles."""
    rng = np.random.default_rng(number)
    columns = number % 4
    media = []
    if columns:
        pixels = rng.integers(0, 255, (56 * (1 + number % 2), 56 * columns, 3), dtype=np.uint8)
        media = [ImageInput(Image.fromarray(pixels))]
    text = "Which of them is it? " * (1 + number % 3)
    return Request(
        f"mixed/test/{number}",
        (Message("user", (*media, Text(text))),),
        generation=GenerationSettings(**{"max_new_tokens": 8, **settings}),
    )


@pytest.fixture(scope="module")
def engines(checkpoint_for):
    """One engine for each method; tests set its batch size."""
    own = {"vico+fastv": {"absolute_threshold": 0.4, "keep_ratio": 0.5}}

    def opened(method) -> Engine:
        given = {**checkpoint_for(method), "method": method, "device": "cpu", **own.get(method, {})}
        return open_engine(given, show_progress=False).engine

    return {method: opened(method) for method in METHODS}


def answer(engine, requests, batch_size):
    engine.batch_size = batch_size
    return engine.answer(requests)


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        *((method, "penalty") for method in METHODS),
        *((method, "beams with penalty") for method in METHODS),
        *((METHODS[0], name) for name in SETTINGS if "penalty" not in name),
    ],
)
def test_four_together_are_answered_as_each_alone(engines, method, settings, same_answers):
    requests = [ask(number, **SETTINGS[settings]) for number in range(4)]
    alone = answer(engines[method], requests, 1)
    assert same_answers(answer(engines[method], requests, 4), alone)
    # The setting is at work, and no answer is like another.
    assert len({one.text for one in alone}) == 4
    plain = answer(engines[method], [ask(number) for number in range(4)], 4)
    assert (alone == plain) == (settings in ("greedy", "reward"))


def greedy_with_penalty(engine, request, penalty):
    """Token by token and without a cache, from the definition: each token of the answer so far is penalised once."""
    (ready,) = engine.rows[0].ready([engine.preprocessor(request)])
    prompt = engine.rows[0].prompt(ready)
    tokens = []
    for _ in range(request.generation.max_new_tokens):
        ids = torch.tensor([prompt.input_ids + tokens])
        embeddings = engine.model.embed(ids, prompt.visual_tokens)
        logits = engine.model.language_model(inputs_embeds=embeddings, use_cache=False).logits[0, -1].float()
        for token in set(tokens):
            logits[token] = logits[token] / penalty if logits[token] > 0 else logits[token] * penalty
        tokens.append(int(logits.argmax()))
        if tokens[-1] == engine.tokenizer.eos_token_id:
            break
    return tokens


@torch.inference_mode()
def test_a_repetition_penalty_counts_the_answers_own_tokens_from_the_first(engines):
    engine = engines["vanilla"]
    plain, penalised = ([ask(number, repetition_penalty=penalty) for number in range(4)] for penalty in (1.0, 30.0))
    texts = [one.text for one in answer(engine, penalised, 4)]
    for request, text in zip(penalised, texts, strict=True):
        tokens = greedy_with_penalty(engine, request, 30.0)
        assert engine.tokenizer.decode(tokens, skip_special_tokens=True).strip() == text
    assert texts != [one.text for one in answer(engine, plain, 4)]


def test_draws_have_the_probabilities_of_the_scores():
    # 4,000 rows: the standard error of a share is sqrt(.5 * .5 / 4000) = 0.008 at most.
    shares = torch.tensor([0.5, 0.3, 0.2, 0.0])
    scores = shares.log().repeat(4000, 1)
    drawn = Counter(DrawnToken(range(4000))(torch.empty(4000, 0), scores).argmax(dim=-1).tolist())
    assert drawn[3] == 0
    for token, share in enumerate(shares.tolist()):
        assert drawn[token] / 4000 == pytest.approx(share, abs=0.03)


def test_a_row_draws_anew_for_every_token():
    draw = DrawnToken([1, 2])
    scores = torch.zeros(2, 1000)
    choices = [draw(torch.empty(2, 0), scores).argmax(dim=-1).tolist() for _ in range(5)]
    assert len({choice for pair in choices for choice in pair}) > 5


OWN = {"repetition_penalty": 30.0, "no_repeat_ngram_size": 1, "min_new_tokens": 7, "suppress_tokens": [*range(97, 110)]}


@pytest.mark.parametrize("place", ["config.json", "generation_config.json"])
def test_what_a_checkpoint_says_about_generation_is_named_and_not_applied(engines, untrained, tmp_path, place):
    folder = shutil.copytree(untrained / "vico", tmp_path / "own")
    if place == "config.json":
        values = json.loads((folder / place).read_text())
        values["text_config"] |= OWN
        (folder / place).write_text(json.dumps(values))
    else:
        (folder / place).write_text(json.dumps({"eos_token_id": 1, "do_sample": False, "num_beams": None} | OWN))
    heard = []
    sink = logger.add(lambda message: heard.append(message.record["message"]), level="WARNING")
    engine = open_engine({"pretrained": str(folder), "device": "cpu"}, show_progress=False).engine
    logger.remove(sink)
    requests = [ask(number) for number in range(4)]
    expected = [one.text for one in answer(engines["vanilla"], requests, 1)]
    assert [one.text for one in engine.answer(requests)] == expected
    (warning,) = heard
    assert "own comes with generation settings, which are not applied: repetition_penalty=30.0, " in warning
    assert all(name in warning for name in OWN)
    assert "eos_token_id" not in warning


def test_a_checkpoint_that_says_nothing_of_its_own_is_opened_without_a_word(untrained):
    heard = []
    sink = logger.add(heard.append, level="WARNING")
    open_engine({"pretrained": str(untrained / "vico"), "device": "cpu"}, show_progress=False)
    logger.remove(sink)
    assert heard == []


# Those of transformers' settings that read a prompt's token ids, or that nobody has tried here.
@pytest.mark.parametrize(
    "name",
    [
        *("no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "encoder_repetition_penalty", "bad_words_ids"),
        *("min_new_tokens", "min_length", "max_length", "begin_suppress_tokens", "suppress_tokens", "sequence_bias"),
        *("forced_bos_token_id", "forced_eos_token_id", "exponential_decay_length_penalty", "guidance_scale"),
        *("prompt_lookup_num_tokens", "assistant_model", "length_penalty", "early_stopping", "num_return_sequences"),
        *("min_p", "typical_p", "penalty_alpha", "num_beam_groups", "diversity_penalty", "watermarking_config"),
    ],
)
def test_other_settings_of_transformers_are_refused_by_name(name):
    with pytest.raises(ConfigError, match=f"Unknown generation argument '{name}'; known are max_new_tokens, "):
        GenerationSettings.from_gen_kwargs({name: 3})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_beams": 2, "do_sample": True}, "num_beams=2; expected 1 with do_sample: beams are searched"),
        ({"do_sample": True, "temperature": float("inf")}, "temperature=inf; expected a number above 0"),
        ({"repetition_penalty": float("inf")}, "repetition_penalty=inf; expected a number above 0"),
        ({"repetition_penalty": float("nan")}, "repetition_penalty=nan; expected a number above 0"),
    ],
)
def test_settings_that_nothing_can_be_generated_with_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        GenerationSettings(**settings)


def test_prefill_ends_at_the_first_tokens_logits_and_no_later():
    first, scores = FirstLogits(), torch.zeros(2, 5)
    assert math.isnan(first.at_s)
    assert first(torch.zeros(2, 0), scores) is scores
    noted = first.at_s
    first(torch.zeros(2, 1), scores)
    assert first.at_s == noted > 0
