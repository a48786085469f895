"""What a selection may give back, and what becomes of it."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from PIL import Image

from vico_eval.engine.engine import Engine
from vico_eval.engine.loading import open_engine
from vico_eval.engine.requests import GenerationSettings, ImageInput, Message, Request, Text
from vico_eval.engine.selection import LOOKED_AT, select
from vico_eval.errors import DocumentError
from vico_eval.methods.interface import P_COMPRESS, QUESTION, ConnectorPart, Selected, SelectionPart, VisualTokens
from vico_eval.methods.registry import Method


def visual(num_images=2, each=3):
    """Tokens [n, 1] of the numbers 0..n-1."""
    image = torch.arange(num_images).repeat_interleave(each)
    return VisualTokens(
        key="a/b/0",
        tokens=torch.arange(len(image)).float()[:, None],
        image=image,
        tile=image,
        grid_yx=torch.zeros(len(image), 2),
    )


class Gives(SelectionPart):
    """Gives back what it is told to."""

    def __init__(self, *chosen):
        self.chosen = chosen

    def select(self, requests):
        return self.chosen


def entering(chosen):
    (found,) = select(Gives(chosen), [visual()], [2])
    return found


def test_kept_tokens_are_counted_by_image():
    found = entering(Selected(torch.tensor([1, 2, 5])))
    assert found.tokens[:, 0].tolist() == [1, 2, 5]
    assert (found.per_image, found.num_merged) == ([2, 1], 0)


def test_none_keeps_the_tokens_themselves():
    one = visual()
    (found,) = select(Gives(None), [one], [2])
    assert found.tokens is one.tokens
    assert found.per_image == [3, 3]


def test_an_image_may_lose_all_its_tokens():
    assert entering(Selected(torch.tensor([3]))).per_image == [0, 1]


def test_merged_tokens_stand_where_they_are_put_within_their_image():
    # Token 0 stands behind token 2 of its image, with a vector of its own.
    chosen = Selected(torch.tensor([2, 0, 4]), torch.tensor([[9.5]]), torch.tensor([False, True, False]))
    found = entering(chosen)
    assert found.tokens[:, 0].tolist() == [2, 9.5, 4]
    assert (found.per_image, found.num_merged) == ([2, 1], 1)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (Selected(torch.tensor([0, 6])), "outside its 6"),
        (Selected(torch.tensor([-1, 2])), "outside its 6"),
        (Selected(torch.tensor([1, 1])), "a token of a/b/0 twice"),
        (Selected(torch.tensor([2, 1])), "reordered the visual tokens of a/b/0"),
        (Selected(torch.tensor([3, 0])), "reordered"),
        (Selected(torch.tensor([0, 1]), torch.ones(1, 1)), "returned 1 merged tokens of a/b/0 and marked 0"),
        (Selected(torch.tensor([0, 1]), None, torch.tensor([True, False])), "returned 0 merged tokens"),
    ],
)
def test_what_can_not_be_meant_is_refused(chosen, message):
    with pytest.raises(RuntimeError, match=message):
        entering(chosen)


def test_merged_tokens_that_are_not_finite_name_the_document():
    chosen = Selected(torch.tensor([0]), torch.tensor([[float("nan")]]), torch.tensor([True]))
    with pytest.raises(FloatingPointError, match="merged tokens of a/b/0 are not finite"):
        entering(chosen)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", LOOKED_AT)
def test_what_is_not_finite_chooses_nothing_and_names_its_documents(name, value):
    values = torch.zeros(6, 1) if name in ("tokens", "question_embeddings", "keys") else torch.zeros(6)
    bad = values.clone()
    bad[1] = value
    spoiled, fine = replace(visual(), key="a/b/1", **{name: bad}), replace(visual(), **{name: values})
    with pytest.raises(FloatingPointError, match=f"{LOOKED_AT[name]} of a/b/1 are not finite"):
        select(Gives(None, None), [fine, spoiled], [2, 2])
    assert len(select(Gives(None, None), [fine, fine], [2, 2])) == 2


def test_every_request_needs_an_answer():
    with pytest.raises(RuntimeError, match="asked to select for 2 requests and did for 1"):
        select(Gives(None), [visual(), visual()], [2, 2])


@dataclass(frozen=True, kw_only=True)
class Nothing:
    """No arguments."""


class Pairs(SelectionPart):
    """Makes the mean of every two neighbours, and looks at the question."""

    Config = Nothing
    needs = frozenset({QUESTION})

    def select(self, requests):
        return [self._pairs(one) for one in requests]

    def _pairs(self, one):
        assert len(one.question_ids) == len(one.question_embeddings) > 0
        first = torch.arange(0, len(one.tokens), 2)
        merged = one.tokens.unflatten(0, (-1, 2)).mean(dim=1)
        return Selected(first, merged, torch.ones(len(first), dtype=torch.bool))


def ask(columns):
    pixels = np.random.default_rng(columns).integers(0, 255, (56, 56 * columns, 3), dtype=np.uint8)
    content = (ImageInput(Image.fromarray(pixels)), Text("Which?"))
    return Request(f"a/b/{columns}", (Message("user", content),), generation=GenerationSettings(max_new_tokens=2))


@pytest.fixture(scope="module")
def plain(untrained) -> Engine:
    return open_engine({"pretrained": str(untrained / "base"), "device": "cpu"}, show_progress=False).engine


def engine_with(plain, part) -> Engine:
    return Engine(
        plain.model, plain.tokenizer, plain.preprocessor, [Method("own", selection=part)], show_progress=False
    )


def test_merged_tokens_are_in_the_account_and_in_the_prompt(plain):
    account = engine_with(plain, Pairs(Nothing())).answer([ask(2)])[0].account
    # 2 tiles and a thumbnail of 16 tokens
    assert (account.visual_tokens_before_selection, account.visual_tokens, account.merged_tokens) == (48, 24, 24)
    assert set(account.visual_tokens_per_layer) == {24}
    assert account.visual_tokens_uncompressed == 48
    assert account.text_tokens == plain.answer([ask(2)])[0].account.text_tokens


def test_a_selection_that_fails_names_its_document_and_the_others_are_answered(plain):
    class FailsOnOne(Pairs):
        def select(self, requests):
            if any(one.key == "a/b/3" for one in requests):
                raise ValueError("not this one")
            return super().select(requests)

    engine = engine_with(plain, FailsOnOne(Nothing()))
    engine.batch_size = 3
    outcomes = dict(engine.outcomes([ask(2), ask(3), ask(4)]))
    assert [isinstance(outcomes[number], DocumentError) for number in range(3)] == [False, True, False]
    assert "document a/b/3 failed" in str(outcomes[1])


@pytest.mark.parametrize("choice", [[0, 2, 0], [0, -1, 0], [0, 1]])
def test_a_tile_on_no_route_is_an_error_and_not_lost(plain, choice):
    class Strange(ConnectorPart):
        def route(self, tiles, facts):
            return torch.tensor(choice)

    method = Method("strange", connector=Strange(Nothing()))
    engine = Engine(plain.model, plain.tokenizer, plain.preprocessor, [method], show_progress=False)
    with pytest.raises(DocumentError, match=r"document a/b/2 failed.*routes .* for the 3 tiles of a/b/2"):
        engine.answer([ask(2)])


def test_a_selection_that_needs_the_routers_scores_gets_them_without_a_connector_part(untrained):
    class Surest(SelectionPart):
        Config = Nothing
        needs = frozenset({P_COMPRESS})

        def select(self, requests):
            return [Selected((one.p_compress == one.p_compress.max()).nonzero()[:, 0]) for one in requests]

    given = {"pretrained": str(untrained / "vico"), "device": "cpu"}
    account = engine_with(open_engine(given, show_progress=False).engine, Surest(Nothing())).answer([ask(2)])[0].account
    assert len(set(account.p_compress)) == 3
    assert (account.visual_tokens_before_selection, account.visual_tokens) == (48, 16)  # one tile's
    assert account.compressed_tiles == 0
