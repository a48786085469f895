"""Keeping every token is transformers' own model to the bit: prompts, pixels, positions, logits and answers."""

from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.video_utils import VideoMetadata

from vico_eval.engine.cpu import prepare_for_cpu
from vico_eval.engine.loading import open_engine
from vico_eval.engine.media import read_frames
from vico_eval.engine.requests import GenerationSettings, ImageInput, Message, Request, Text, VideoInput

KINDS = ("qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe")
GREEDY = GenerationSettings(max_new_tokens=20)
FPS, NUM_FRAMES = 8, 21


def picture(width, height, seed):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8))


def document(key, *content, system=None):
    messages = [] if system is None else [Message("system", (Text(system),))]
    return Request(key, (*messages, Message("user", content)), generation=GREEDY)


@pytest.fixture(scope="module")
def film(tmp_path_factory, write_video):
    return write_video(tmp_path_factory.mktemp("film") / "clip.mp4", NUM_FRAMES, fps=FPS, size=96)


@pytest.fixture(scope="module")
def documents(film):
    """Of every kind: text only, one image, several with text between them, a film, both, and a system message."""
    one, wide, tall = picture(150, 100, 0), picture(400, 90, 1), picture(64, 300, 2)
    return {
        "text": document("text", Text("No picture at all, but quite a long question to answer.")),
        "image": document("image", ImageInput(one), Text("Which?")),
        "several": document("several", ImageInput(wide), Text("This, or "), ImageInput(tall), Text("that?")),
        "film": document("film", VideoInput(film), Text("What happens?")),
        "both": document("both", ImageInput(one), VideoInput(film), Text("Is it in there?"), system="Be brief."),
    }


@pytest.fixture(scope="module")
def engine_of(qwen):
    @cache
    def get(kind, **settings):
        given = {"pretrained": str(qwen(kind)), "device": "cpu", **settings}
        return open_engine(given, show_progress=False).engine

    return get


@pytest.fixture(scope="module")
def reference_of(qwen):
    """transformers' own model and processor, by the same kernels of the CPU as ours."""

    @cache
    def get(kind):
        model = AutoModelForImageTextToText.from_pretrained(qwen(kind), trust_remote_code=False).eval()
        prepare_for_cpu(model)
        return model, AutoProcessor.from_pretrained(qwen(kind), trust_remote_code=False)

    return get


def inputs_of(processor, requests):
    """What transformers' processor makes of requests, left-padded."""
    texts, images, videos, metadata = [], [], [], []
    for request in requests:
        conversation = []
        for message in request.messages:
            parts = []
            for part in message.content:
                if isinstance(part, Text):
                    parts.append({"type": "text", "text": part.text})
                elif isinstance(part, ImageInput):
                    images.append(part.source)
                    parts.append({"type": "image"})
                else:
                    frames = read_frames(part.source, NUM_FRAMES)
                    videos.append(np.stack([np.asarray(frame) for frame in frames]))
                    metadata.append(VideoMetadata(total_num_frames=NUM_FRAMES, fps=float(FPS)))
                    parts.append({"type": "video"})
            conversation.append({"role": message.role, "content": parts})
        texts.append(processor.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True))
    of_videos = {"videos": videos, "video_metadata": metadata, "do_sample_frames": True, "fps": 2} if videos else {}
    return processor(
        text=texts,
        images=images or None,
        padding=True,
        padding_side="left",
        return_tensors="pt",
        **of_videos,
    )


@torch.inference_mode()
def theirs(reference, requests, stop_ids):
    """Logits of every step [steps][requests, V], and the new tokens [requests, steps]."""
    model, processor = reference
    inputs = inputs_of(processor, requests)
    settings = {"max_new_tokens": 20, "do_sample": False, "eos_token_id": stop_ids, "pad_token_id": 256}
    found = model.generate(**inputs, **settings, output_logits=True, return_dict_in_generate=True)
    return torch.stack(found.logits), found.sequences[:, inputs["input_ids"].shape[1] :]


def ours(engine, requests):
    """The same of the engine, in one batch."""
    logits = []
    hook = engine.model.language_model.register_forward_hook(lambda _, __, made: logits.append(made.logits[:, -1]))
    with torch.inference_mode():
        row = engine.rows[0]
        prepared = [engine.preprocessor(request) for request in requests]
        prompts = [row.prompt(entry) for entry in row.ready(prepared)]
        found = row.generate(prompts, GREEDY)
    hook.remove()
    return torch.stack(logits), [one.tokens for one in found]


def assert_equal(engine, reference, requests):
    logits, tokens = ours(engine, requests)
    expected, answers = theirs(reference, requests, engine.rows[0].generate.stop_ids)
    assert torch.equal(logits, expected)
    assert [one[: len(answer)] for one, answer in zip(answers.tolist(), tokens, strict=True)] == tokens
    assert max(map(len, tokens)) > 1


@pytest.mark.parametrize("name", ["text", "image", "several", "film", "both"])
@pytest.mark.parametrize("kind", KINDS)
def test_alone_logits_and_answers_are_equal_to_the_bit(engine_of, reference_of, documents, kind, name):
    assert_equal(engine_of(kind), reference_of(kind), [documents[name]])


@pytest.mark.parametrize("kind", KINDS)
def test_in_a_padded_batch_as_well(engine_of, reference_of, documents, kind):
    assert_equal(engine_of(kind), reference_of(kind), [documents[name] for name in ("both", "text", "several")])


@pytest.mark.parametrize("kind", KINDS)
def test_a_part_that_takes_nothing_out_changes_no_bit(engine_of, reference_of, documents, kind):
    engine = engine_of(kind, method="fastv", keep_ratio=1.0)
    assert_equal(engine, reference_of(kind), [documents["both"]])
    assert_equal(engine, reference_of(kind), [documents[name] for name in ("several", "text", "film")])


@pytest.mark.parametrize("kind", KINDS)
def test_ids_pixels_and_positions_are_the_processors(engine_of, reference_of, documents, kind):
    engine, (model, processor) = engine_of(kind), reference_of(kind)
    image, video = (processor.tokenizer.convert_tokens_to_ids(token) for token in ("<|image_pad|>", "<|video_pad|>"))
    for request in documents.values():
        inputs = inputs_of(processor, [request])
        expected = inputs["input_ids"].where(inputs["input_ids"] != video, image)
        prepared = engine.preprocessor(request)
        ids = engine.preprocessor.prompt_ids(prepared, [picture.num_tokens for picture in prepared.pictures])
        assert ids == expected[0].tolist()
        for is_film, name in ((False, "pixel_values"), (True, "pixel_values_videos")):
            of_kind = [picture for picture in prepared.pictures if picture.is_film == is_film]
            assert (name in inputs) == bool(of_kind)
            if of_kind:
                patches = torch.from_numpy(np.concatenate([picture.pieces[0] for picture in of_kind]))
                encoder = engine.rows[0].see._shared._encode
                assert torch.equal(encoder._normalised(patches, is_film), inputs[name])
        grids = {key: value for key, value in inputs.items() if key.endswith(("_thw", "_ts"))}
        positions, _ = model.model.get_rope_index(
            inputs["input_ids"], inputs["mm_token_type_ids"], attention_mask=inputs["attention_mask"], **grids
        )
        assert torch.equal(engine.model.positions(ids, prepared.pictures), positions[:, 0])
