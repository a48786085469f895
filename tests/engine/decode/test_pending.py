"""Answers that come back in whatever order, errors that end all, and prompts that nobody waits for any more."""

from concurrent.futures import Future

import pytest
import torch

from vico_eval.engine.decode.backend import Decoded, EmbeddedPrompt
from vico_eval.engine.decode.pending import Pending, settled
from vico_eval.engine.decode.servers import NoServer
from vico_eval.engine.requests import GenerationSettings
from vico_eval.engine.row import Answer
from vico_eval.errors import DocumentError
from vico_eval.runs.schema import AnswerSeconds, TokenAccount

ACCOUNT = TokenAccount(
    visual_tokens=0, visual_tokens_uncompressed=0, visual_tokens_per_layer=(), text_tokens=1, generated_tokens=1
)


class Backend:
    """Keeps what is submitted; `end` says how it ended once there is so much."""

    def __init__(self, most, end):
        self.max_in_flight, self.end, self.futures, self.keys = most, end, [], []

    def submit(self, prompt):
        self.futures.append(Future())
        self.keys.append(prompt.key)
        self.end(self)
        return self.futures[-1]

    def closing_words(self):
        return None


def pending(number):
    prompt = EmbeddedPrompt(
        key=f"t/test/{number}",
        embeddings=torch.zeros(2, 2),
        settings=GenerationSettings(),
        seed=0,
        stop_ids=(),
    )
    return Pending(
        prompt=prompt,
        seconds=AnswerSeconds(reading=0, encoding=0, own=0),
        finish=lambda tokens: Answer(prompt.key, f"{tokens}", ACCOUNT),
    )


def in_pairs_from_the_last(backend):
    if len(backend.futures) % 2 == 0:
        for number in (-1, -2):
            backend.futures[number].set_result(Decoded([len(backend.futures) + number]))


def test_answers_come_as_they_are_ready_and_what_is_known_is_not_asked():
    backend = Backend(2, in_pairs_from_the_last)
    outcomes = [(0, 0, pending(0)), (1, 0, pending(0)), (0, 1, DocumentError("bad")), (0, 2, pending(2))]
    outcomes += [(1, 1, pending(1)), (0, 3, pending(3))]
    found = list(settled(iter(outcomes), backend, [(), (0,)]))
    assert sorted((row, number) for row, number, _ in found) == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 1)]
    texts = {(row, number): outcome.text for row, number, outcome in found if isinstance(outcome, Answer)}
    assert texts == {(0, 0): "[0]", (0, 2): "[1]", (1, 1): "[2]", (0, 3): "[3]"}


def test_an_error_of_a_prompt_is_its_document_s():
    def fail(backend):
        backend.futures[-1].set_exception(ValueError("too long"))

    ((_, _, outcome),) = settled([(0, 0, pending(7))], Backend(1, fail), [()])
    assert isinstance(outcome, DocumentError)
    assert str(outcome) == "document t/test/7 failed: ValueError: too long"


def test_what_was_answered_comes_before_the_error_that_ends_all():
    def end(backend):
        if len(backend.futures) == 4:
            for number, future in enumerate(backend.futures):
                if number % 2:
                    future.set_result(Decoded([number]))
                else:
                    future.set_exception(NoServer("no vLLM server is left"))

    answers = settled([(0, number, pending(number)) for number in range(4)], Backend(4, end), [()])
    found = [next(answers), next(answers)]
    with pytest.raises(NoServer):
        next(answers)
    assert sorted(number for _, number, _ in found) == [1, 3]


def test_what_nobody_waits_for_is_cancelled():
    def first(backend):
        if len(backend.futures) == 3:
            backend.futures[0].set_result(Decoded([1]))

    backend = Backend(3, first)
    answers = settled([(0, number, pending(number)) for number in range(5)], backend, [()])
    assert next(answers)[1] == 0
    answers.close()
    assert [future.cancelled() for future in backend.futures] == [False, True, True]
    assert backend.keys == ["t/test/0", "t/test/1", "t/test/2"]
