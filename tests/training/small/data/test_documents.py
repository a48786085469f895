"""Batches: the same for the same step, the benchmark's prompts, and answers aligned whatever the routing."""

from __future__ import annotations

from hashlib import sha256

import numpy as np
import pytest
import torch

from vico_eval.engine.preprocess import Preprocessor
from vico_eval.engine.requests import GenerationSettings, ImageInput, Message, Request, Text
from vico_eval.families.internvl.checkpoint import find_checkpoint
from vico_eval.families.internvl.prompting import InternVLPrompting, InternVLSettings
from vico_eval.tiny.scenes import TASKS, make_scene
from vico_eval.training.small.data.batches import collate
from vico_eval.training.small.data.documents import DocumentMaker
from vico_eval.training.small.data.drawing import make_batch, step_rng
from vico_eval.training.small.decoding import encode, routed_logits
from vico_eval.training.small.evaluate import VALIDATION


def batch_of(model, tokenizer, stage="base/0", step=7, **options):
    settings = {"num_tokens": 1200, "max_questions": 4, **options}
    return make_batch(step_rng(0, stage, step), DocumentMaker(tokenizer, model.config), **settings)


def test_a_step_always_gives_the_same_batch_and_another_step_another(micro_model, tokenizer):
    one, again, other = (batch_of(micro_model, tokenizer, step=step) for step in (7, 7, 8))
    assert torch.equal(one.tiles, again.tiles)
    assert torch.equal(one.input_ids, again.input_ids)
    assert one.tiles.shape != other.tiles.shape or not torch.equal(one.tiles, other.tiles)


def test_validation_draws_from_a_stream_of_its_own():
    streams = [step_rng(0, stage, 1).integers(1 << 62) for stage in ("base/0", "base/1", "warmup/0", VALIDATION)]
    assert len(set(streams)) == 4


def test_a_batch_stays_within_its_token_budget(micro_model, tokenizer):
    for step in range(6):
        batch = batch_of(micro_model, tokenizer, step=step, num_tokens=1500)
        high = torch.full((len(batch.tiles),), micro_model.num_high_tokens)
        assert batch.num_documents == 1 or batch.expand(high).input_ids.numel() <= 1500


@pytest.mark.parametrize("task", [task for task in TASKS if task != "video"])
def test_the_first_question_is_what_the_engine_will_ask(task, micro_model, tokenizer):
    scene = make_scene(task, np.random.default_rng(5))
    document = DocumentMaker(tokenizer, micro_model.config)(scene, scene.questions[:2])
    prepare = Preprocessor(tokenizer, InternVLPrompting(InternVLSettings.of(micro_model.config)))
    content = (*(ImageInput(image) for image in scene.images), Text(scene.questions[0].text))
    prepared = prepare(Request("key", (Message("user", content),), GenerationSettings()))
    assert np.array_equal(prepare.prompting.tiles(prepared.pictures), document.tiles)
    assert np.array_equal(prepared.piece_image, document.tile_image)
    asked = prepare.prompt_ids(prepared, np.bincount(document.tile_image).tolist())
    assert document.input_ids[: len(asked)].tolist() == asked
    assert not document.is_answer[: len(asked)].any()
    assert document.is_answer[len(asked)]


def test_ids_are_those_that_the_committed_models_were_trained_on(tokenizer):
    config = find_checkpoint("vico-tiny").config
    make, digest = DocumentMaker(tokenizer, config), sha256()
    for index, task in enumerate(TASKS):
        scene = make_scene(task, step_rng(0, VALIDATION, index))
        document = make(scene, scene.questions)
        for values in (document.tile_image, document.input_ids, document.is_answer, document.branch):
            digest.update(values.tobytes())
    assert digest.hexdigest() == "c7e484a4ddf9d5b7a3298ecac28d70b9838a04b68ff1303fe1709742d22f8071"


def test_a_video_is_written_as_numbered_frames(micro_model, tokenizer):
    scene = make_scene("video", np.random.default_rng(5))
    document = DocumentMaker(tokenizer, micro_model.config)(scene, scene.questions[:1])
    frames = "".join(f"Frame{number}: <img><IMG_CONTEXT></img>\n" for number in range(1, 9))
    question, answer = scene.questions[0].text, scene.questions[0].answer
    expected = f"<|im_start|>user\n{frames}{question}<|im_end|>\n<|im_start|>assistant\n{answer}<|im_end|>"
    assert tokenizer.decode(document.input_ids).endswith(expected)


def test_answers_are_what_is_marked_and_each_ends_its_turn(micro_model, tokenizer):
    scene = make_scene("bar", np.random.default_rng(2))
    document = DocumentMaker(tokenizer, micro_model.config)(scene, scene.questions)
    marked = tokenizer.decode(document.input_ids[document.is_answer])
    assert marked == "".join(f"{question.answer}<|im_end|>" for question in scene.questions)


def test_expanding_keeps_the_text_and_gives_each_tile_its_length(micro_model, tokenizer):
    batch = batch_of(micro_model, tokenizer)
    counts = torch.arange(len(batch.tiles)) % 3 + 1
    expanded = batch.expand(counts)
    per_document = counts.view(batch.tile_image.shape).sum(dim=1)
    assert torch.equal((expanded.input_ids == batch.image_token_id).sum(dim=1), per_document)
    # Answers come in the same order, whatever the lengths of the prompts before them.
    assert torch.equal(expanded.input_ids[expanded.is_answer], batch.answers)
    assert torch.equal(expanded.is_answer.nonzero()[:, 0], batch.answer_document)


def test_logits_of_a_document_do_not_depend_on_its_batch_and_routing_of_others(micro_model, tokenizer):
    rng = np.random.default_rng(0)
    scenes = [make_scene(task, rng, (2, 1)) for task in ("read", "tallest", "count")]
    documents = [DocumentMaker(tokenizer, micro_model.config)(scene, scene.questions[:2]) for scene in scenes]
    together = collate(documents, tokenizer)
    compressed = torch.tensor([True, False, False, False, True, True, False, False, False])
    with torch.no_grad():
        logits = routed_logits(micro_model, together, encode(micro_model, together), compressed)
        for index, document in enumerate(documents):
            alone = collate([document], tokenizer)
            own = compressed[3 * index : 3 * index + 3]
            expected = routed_logits(micro_model, alone, encode(micro_model, alone), own)
            # float32: batching differs by about 1e-6, a token off by one position by more than 1e-1.
            torch.testing.assert_close(logits[together.answer_document == index], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("tiles_low", [False, True])
def test_a_question_is_answered_as_if_it_were_the_only_one(tiles_low, micro_model, tokenizer):
    scene = make_scene("tallest", np.random.default_rng(3), (2, 1))
    short = make_scene("count", np.random.default_rng(3), (2, 1))  # so that one row is padded
    several = collate(
        [DocumentMaker(tokenizer, micro_model.config)(each, each.questions) for each in (short, scene)], tokenizer
    )
    compressed = torch.full((len(several.tiles),), tiles_low)
    with torch.no_grad():
        logits = routed_logits(micro_model, several, encode(micro_model, several), compressed)
        alone = [
            collate([DocumentMaker(tokenizer, micro_model.config)(each, [question])], tokenizer)
            for each in (short, scene)
            for question in each.questions
        ]
        expected = [
            routed_logits(micro_model, one, encode(micro_model, one), compressed[: len(one.tiles)]) for one in alone
        ]
    assert len(alone) > 4
    # A question that saw another one, or stood a position off, would differ by more than 1e-1.
    torch.testing.assert_close(logits, torch.cat(expected), atol=1e-4, rtol=1e-4)
