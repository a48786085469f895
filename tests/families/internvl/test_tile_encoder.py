"""A picture that several requests ask about goes through the vision encoder once."""

import numpy as np
import pytest
import torch
from PIL import Image

from vico_eval.engine.engine import Engine
from vico_eval.engine.loading import open_engine
from vico_eval.engine.requests import GenerationSettings, ImageInput, Message, Request, Text
from vico_eval.families.internvl.tile_encoder import TileEncoder
from vico_eval.methods.interface import ScoreSource

SHORT = GenerationSettings(max_new_tokens=4)


def picture(seed: int, columns: int = 1) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (56, 56 * columns, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def ask(key: str, image: Image.Image | None, text: str = "Which?") -> Request:
    media = () if image is None else (ImageInput(image),)
    return Request(key, (Message("user", (*media, Text(text))),), SHORT)


@pytest.fixture(scope="module")
def engine(checkpoint_for) -> Engine:
    return open_engine({**checkpoint_for("vico"), "method": "vico", "batch_size": 4}, show_progress=False).engine


@pytest.fixture
def encoded(engine):
    """Tiles of each call of the vision encoder."""
    calls: list[int] = []
    hook = engine.model.vision_tower.register_forward_pre_hook(
        lambda _, __, given: calls.append(len(given["pixel_values"])), with_kwargs=True
    )
    engine.rows[0].see.forget()
    yield calls
    hook.remove()


def test_questions_about_one_picture_share_its_tiles(engine, encoded, same_answers):
    one, wide = picture(0), picture(1, columns=2)
    requests = [
        ask("a", one, "What is it?"),
        ask("b", wide),
        ask("c", one),
        ask("d", None),
    ]
    together = engine.answer(requests)
    assert encoded == [1 + 3]  # the wide one has two tiles and a thumbnail
    alone = [engine.answer([request])[0] for request in requests]
    assert same_answers(together, alone)
    assert [answer.account.tiles for answer in together] == [1, 3, 1, 0]


def test_the_next_question_about_the_only_picture_takes_its_tokens_over(engine, encoded):
    first = engine.answer([ask("a", picture(0))])
    again = engine.answer([ask("b", picture(0)), ask("c", picture(0), "How many?")])
    assert encoded == [1]
    assert first[0].text == again[0].text
    engine.answer([ask("d", picture(2))])
    engine.answer([ask("e", picture(0))])
    assert encoded == [1, 1, 1]


def test_what_other_pictures_stood_beside_is_not_taken_over(engine, encoded):
    engine.answer([ask("a", picture(0)), ask("b", picture(1))])
    engine.answer([ask("c", picture(0))])
    assert encoded == [2, 1]


def test_questions_about_one_picture_stand_in_one_batch(engine, encoded):
    """By length alone, pictures of one size would be mixed: 3 batches of 4 would encode 4 tiles each."""
    questions = ("?", "Who is it?", "What is shown here?", "How many of them are there?")
    requests = [ask(f"{seed}/{text}", picture(seed), text) for text in questions for seed in range(3)]
    engine.answer(requests)
    assert encoded == [1, 1, 1]


def test_equal_tiles_of_different_pictures_are_encoded_once(engine, encoded, same_answers):
    """As the empty ones of two pages: here every left half, and both halves of one picture."""
    left, right, other = (np.asarray(picture(seed)) for seed in range(3))
    pictures = [np.concatenate(halves, axis=1) for halves in ((left, right), (left, other), (left, left))]
    requests = [ask(str(number), Image.fromarray(pixels)) for number, pixels in enumerate(pictures)]
    together = engine.answer(requests)
    assert encoded == [3 + 3]  # three different halves and three thumbnails
    assert same_answers(together, [engine.answer([request])[0] for request in requests])
    assert [answer.account.tiles for answer in together] == [3, 3, 3]


def test_tokens_are_those_of_the_tiles(engine):
    prepared = [engine.preprocessor(ask(str(number), picture(seed))) for number, seed in enumerate((0, 1, 0))]
    with torch.inference_mode():
        encode = TileEncoder(engine.model.vision_tower)
        tokens = encode(prepared).vit_tokens
        expected = encode(prepared[:2]).vit_tokens
    torch.testing.assert_close(tokens, expected[[0, 1, 0]])


@pytest.fixture
def small_device(engine, encoded):
    """Calls of a vision encoder that has memory for three tiles at once, and runs out of it late."""

    def refuse(_, given):
        if len(given[0]) > 3:
            raise torch.OutOfMemoryError("no room for so many tiles")

    hook = engine.model.vision_tower.encoder.layer[-1].register_forward_pre_hook(refuse)
    yield encoded
    hook.remove()


@torch.inference_mode()
def test_where_memory_runs_out_fewer_tiles_are_encoded_at_once(engine, small_device):
    source = ScoreSource("cls", -2)
    page, narrower = (engine.preprocessor(ask("page", picture(columns, columns))) for columns in (6, 4))
    encode = TileEncoder(engine.model.vision_tower, [source])
    found = encode([page])
    assert small_device == [7, 3, 3, 1]  # six tiles and a thumbnail
    small_device.clear()
    encode([narrower])
    assert small_device == [3, 2]
    # The attempt that failed left nothing behind in the layer that is watched.
    alone = TileEncoder(engine.model.vision_tower, [source])
    alone._portions.most = 1
    expected = alone([page])
    torch.testing.assert_close(found.vit_tokens, expected.vit_tokens)
    torch.testing.assert_close(tuple(found.attention[source]), tuple(expected.attention[source]))


def test_a_document_of_many_tiles_is_answered_with_little_memory(engine, encoded, small_device):
    page = ask("page", picture(6, columns=6))
    found = engine.answer([page])
    assert encoded == [7, 3, 3, 1]
    assert found[0].account.tiles == 7


@torch.inference_mode()
def test_a_single_tile_that_does_not_fit_is_an_error(engine):
    def refuse(*_):
        raise torch.OutOfMemoryError("no room at all")

    hook = engine.model.vision_tower.register_forward_pre_hook(refuse)
    with pytest.raises(torch.OutOfMemoryError, match="no room at all"):
        TileEncoder(engine.model.vision_tower)([engine.preprocessor(ask("page", picture(6, columns=6)))])
    hook.remove()
