"""Settings from lmms-eval's task files, and requests that make sense."""

import copy

import pytest

from vico_eval.engine.requests import (
    THINKING_GENERATION,
    GenerationSettings,
    ImageInput,
    Message,
    Request,
    Text,
    VideoInput,
)
from vico_eval.errors import ConfigError


def user(*parts):
    return Message("user", parts or (Text("Hi"),))


@pytest.mark.parametrize(
    ("gen_kwargs", "is_sampling"),
    [
        ({}, False),
        ({"temperature": 0}, False),
        ({"temperature": 0.0, "do_sample": True}, False),
        ({"top_p": 0, "do_sample": True}, False),
        ({"temperature": 0.2, "do_sample": False, "top_p": 1.0, "num_beams": 1}, False),  # MM-Vet
        ({"temperature": 0.7}, True),
        ({"do_sample": True}, True),
        ({"do_sample": None, "temperature": None}, False),
    ],
)
def test_who_samples(gen_kwargs, is_sampling):
    assert GenerationSettings.from_gen_kwargs(gen_kwargs).do_sample is is_sampling


def test_sampling_arguments_are_honoured():
    gen_kwargs = {
        "do_sample": True,
        "temperature": 0.6,
        "top_p": 0.9,
        "top_k": 20,
        "repetition_penalty": 1.2,
        "seed": 3,
    }
    assert GenerationSettings.from_gen_kwargs(gen_kwargs) == GenerationSettings(
        do_sample=True, temperature=0.6, top_p=0.9, top_k=20, repetition_penalty=1.2, seed=3
    )


def test_equal_greedy_answers_have_equal_settings():
    # Otherwise documents of one task could not share a batch with those of another.
    pope = {"max_new_tokens": 128, "temperature": 0, "top_p": 0, "num_beams": 1, "do_sample": False}
    assert GenerationSettings.from_gen_kwargs(pope) == GenerationSettings(max_new_tokens=128)


@pytest.mark.parametrize(
    ("until", "expected"),
    [
        ("\n\n", ("\n\n",)),
        (["ASSISTANT:", "\n"], ("ASSISTANT:", "\n")),
        (None, ()),
        ([], ()),
        ("", ()),
        (["", "a"], ("a",)),
    ],
)
def test_until(until, expected):
    assert GenerationSettings.from_gen_kwargs({"until": until}).until == expected


def test_the_task_keeps_its_arguments_unchanged():
    # lmms-eval's answer cache computes its key from the same object before and after.
    gen_kwargs = {"until": ["\n\n"], "temperature": 0, "do_sample": False, "image_aspect_ratio": "original"}
    before = copy.deepcopy(gen_kwargs)
    GenerationSettings.from_gen_kwargs(gen_kwargs, max_new_tokens=7)
    assert gen_kwargs == before


def test_defaults_fill_only_what_the_task_leaves_open():
    settings = GenerationSettings.from_gen_kwargs({"max_new_tokens": 16}, max_new_tokens=512, repetition_penalty=1.1)
    assert (settings.max_new_tokens, settings.repetition_penalty) == (16, 1.1)


def test_unknown_argument_lists_the_known_ones():
    with pytest.raises(ConfigError, match=r"'max_new_token'; known are max_new_tokens, .*image_aspect_ratio"):
        GenerationSettings.from_gen_kwargs({"max_new_token": 5})


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_new_tokens": 0},
        {"max_new_tokens": 1.5},
        {"num_beams": True},
        {"do_sample": "false"},
        {"do_sample": True, "temperature": -1},
        {"do_sample": True, "top_p": 1.5},
        {"do_sample": True, "top_k": -1},
        {"repetition_penalty": 0},
        {"repetition_penalty": float("inf")},
        {"do_sample": True, "temperature": float("inf")},
        {"do_sample": True, "temperature": "2"},
    ],
    ids=str,
)
def test_values_out_of_range_are_named(wrong):
    name = list(wrong)[-1]
    with pytest.raises(ConfigError, match=f"{name}={wrong[name]!r}; expected"):
        GenerationSettings.from_gen_kwargs(wrong)


@pytest.mark.parametrize("name", ["temperature", "top_p", "repetition_penalty"])
def test_a_whole_number_is_taken_for_a_number(name):
    # Command lines and YAML deliver temperature=2 as 2, and transformers takes only 2.0.
    whole, exact = (GenerationSettings.from_gen_kwargs({"do_sample": True, name: value}) for value in (1, 1.0))
    assert type(getattr(whole, name)) is float
    assert repr(whole) == repr(exact)


def test_thinking_is_sampled_unless_somebody_says_otherwise():
    def asked(**given):
        return GenerationSettings.from_gen_kwargs(given, **THINKING_GENERATION)

    assert asked() == GenerationSettings(max_new_tokens=65536, do_sample=True, temperature=0.6, top_p=0.95)
    assert asked(top_p=0.8, max_new_tokens=100).top_p == 0.8
    assert asked(do_sample=False) == asked(temperature=0) == GenerationSettings(max_new_tokens=65536)


def test_messages_are_kept_as_tuples():
    request = Request("a/b/0", [Message("system", [Text("Be brief.")]), user(), Message("assistant", []), user()])
    assert isinstance(request.messages, tuple)
    assert isinstance(request.messages[0].content, tuple)


@pytest.mark.parametrize(
    "messages",
    [[], [Message("system", ())], [user(), Message("assistant", ())], [user(), Message("system", ()), user()]],
)
def test_order_of_roles(messages):
    with pytest.raises(ConfigError, match=r"Request a/b/0 .*user's message last"):
        Request("a/b/0", messages)


def test_what_a_message_may_hold():
    with pytest.raises(ConfigError, match="contains a str"):
        Message("user", ("Hi",))
    with pytest.raises(ConfigError, match="role 'bot'"):
        Message("bot", ())
    with pytest.raises(ConfigError, match="system message contains a ImageInput"):
        Message("system", (ImageInput("a.png"),))
    with pytest.raises(ConfigError, match="no key"):
        Request("", (user(),))
    with pytest.raises(ConfigError, match="max_tiles=0"):
        Request("a/b/0", (user(),), max_tiles=0)
    with pytest.raises(ConfigError, match="total_max_tiles='all'"):
        Request("a/b/0", (user(),), total_max_tiles="all")
    with pytest.raises(ConfigError, match=r"from 3.0 s to 2.0 s"):
        VideoInput("a.mp4", start_s=3.0, end_s=2.0)
