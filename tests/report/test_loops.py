"""What counts as an answer that ends in a repetition loop, and that looking for one takes no time."""

import random
import time

import pytest

from vico_eval.report.endings.loops import MAX_PHRASE, MIN_CHARACTERS, MIN_REPEATS, repeated_phrase


def phrase_of(length, seed=0):
    return "".join(random.Random(seed).choices("abcdefghij ", k=length - 2)) + "xy"


@pytest.mark.parametrize("length", [3, 25, 26, 100, MAX_PHRASE])
def test_a_phrase_that_ends_an_answer_four_times_is_a_loop(length):
    phrase = phrase_of(length)
    needed = max(MIN_CHARACTERS, MIN_REPEATS * length)
    repeats = (phrase * needed)[-needed:]
    assert repeated_phrase(f"First, look at it. {repeats}") == phrase
    # A character less is too short.
    assert repeated_phrase(f"First, look at it:{repeats[1:]}") is None


def test_one_character_is_a_phrase():
    assert repeated_phrase("I see 0." + "0" * MIN_CHARACTERS) == "0"
    assert repeated_phrase("I see 1." + "0" * (MIN_CHARACTERS - 1)) is None


def test_a_longer_phrase_is_not_looked_for():
    assert repeated_phrase(phrase_of(MAX_PHRASE + 1) * 5) is None


@pytest.mark.parametrize("cut", [1, 10, 29])
def test_the_last_repeat_may_be_cut_off_anywhere(cut):
    text = phrase_of(30) * 6
    found = repeated_phrase(text[:-cut])
    assert found is not None
    assert len(found) == 30
    assert sorted(found) == sorted(phrase_of(30))


def test_white_space_behind_the_answer_does_not_count():
    assert repeated_phrase("Wait, no.\n" * 12 + "\n \n") == "\nWait, no."


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Yes",
        "no " * 20,
        "Wait. " * 200 + "So the answer is B, since the bar of 2019 is the tallest.",  # it got out of the loop
        " ".join(f"{number}. The bar of {1900 + number} is taller." for number in range(100)),  # it counts on
        "The answer is B. " * 3 + "The answer is B",
        "".join(random.Random(1).choices("ab", k=20_000)),
    ],
)
def test_what_is_no_loop(text):
    assert repeated_phrase(text) is None


def test_the_shortest_phrase_is_the_one():
    assert repeated_phrase("ab" * 500) == "ab"


def test_other_scripts_are_counted_in_characters():
    assert repeated_phrase("图中有一辆红色的汽车。" * 10) == "图中有一辆红色的汽车。"


def test_a_near_miss_inside_the_repeats_is_no_loop():
    phrase = phrase_of(50)
    assert repeated_phrase(phrase + phrase.replace("x", "z") + phrase * 3) is None
    assert repeated_phrase(phrase + phrase.replace("x", "z") + phrase * 4) == phrase


@pytest.mark.parametrize(
    "text",
    [
        phrase_of(250_000),
        "a" * 125_000 + "b" + "a" * 30 + "b" + "a" * 120_000 + "b" + "a" * 30,  # the probe stands nearly everywhere
        ("a" * 30 + "b") * 8000 + "a" * 26,
        phrase_of(1999) * 130,
    ],
)
def test_an_answer_of_64k_tokens_takes_milliseconds(text):
    began = time.perf_counter()
    repeated_phrase(text)
    # 3 ms for the worst of them here; to compare every place with every other would take minutes.
    assert time.perf_counter() - began < 0.5
