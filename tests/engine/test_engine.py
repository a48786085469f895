"""The engine with every method: accounts are true, failures are named, settings are kept apart."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from vico_eval.engine.engine import Engine
from vico_eval.engine.loading import open_engine
from vico_eval.engine.model import load
from vico_eval.engine.requests import (
    DeferredRequest,
    GenerationSettings,
    ImageInput,
    Message,
    Request,
    Text,
    VideoInput,
)
from vico_eval.errors import CheckpointError, DocumentError
from vico_eval.methods import registry
from vico_eval.methods.interface import PixelPart
from vico_eval.methods.registry import method_names

HIGH, LOW = 16, 4
SHORT = GenerationSettings(max_new_tokens=6)

# The random router's scores lie around 0.4: thresholds that let some tiles through and hold some back.
ROUTING = {"absolute_threshold": 0.4}
ARGUMENTS = {
    "random": {"ratio": 0.5},
    "vico": ROUTING,
    "image_vir": ROUTING,
    "vanilla_vir": ROUTING,
    "fitprune": {"recipe": "llava"},
}

ON_TILES = [name for name in method_names() if not issubclass(registry.load(name), PixelPart)]


def picture(columns, rows, seed):
    pixels = np.random.default_rng(seed).integers(0, 255, (56 * rows, 56 * columns, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def request(key, *media, text="Which?", settings=SHORT):
    return Request(f"mixed/test/{key}", (Message("user", (*media, Text(text))),), generation=settings)


@pytest.fixture(scope="module")
def requests(tmp_path_factory, write_video):
    """Text only, one tile, many tiles, several images, a video: 0, 1, 13, 1 + 3 and 8 tiles."""
    video = write_video(tmp_path_factory.mktemp("video") / "clip.mp4", 8)
    return [
        request(0, text="No picture at all, but quite a long question to answer."),
        request(1, ImageInput(picture(1, 1, seed=1))),
        request(2, ImageInput(picture(4, 3, seed=2))),
        request(3, ImageInput(picture(1, 1, seed=3)), ImageInput(picture(2, 1, seed=4))),
        request(4, VideoInput(video)),
    ]


@pytest.fixture(scope="module")
def make_engine(checkpoint_for):
    def make(method, **settings) -> Engine:
        arguments = checkpoint_for(method) | {"method": method, "device": "cpu"} | ARGUMENTS.get(method, {})
        return open_engine(arguments | settings, show_progress=False).engine

    return make


@pytest.fixture(scope="module")
def answered(make_engine, requests):
    """A method's engine and its answers to the requests one at a time, made once for all tests that ask for them."""
    made = {}

    def get(method):
        if method not in made:
            engine = make_engine(method)
            made[method] = engine, engine.answer(requests)
        return made[method]

    return get


@pytest.mark.parametrize("method", ON_TILES)
def test_the_account_is_what_the_decoder_saw(answered, requests, method):
    engine, _ = answered(method)
    seen = []
    decoder = engine.model.language_model.model
    handle = decoder.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(
            kwargs["inputs_embeds"].shape[1] if kwargs.get("inputs_embeds") is not None else 1
        ),
        with_kwargs=True,
    )
    for one in requests:
        seen.clear()
        account = engine.answer([one])[0].account
        assert seen[0] == account.visual_tokens + account.text_tokens, one.key
        assert account.visual_tokens_uncompressed == HIGH * account.tiles
        connected = HIGH * account.tiles - (HIGH - LOW) * account.compressed_tiles
        if engine.method.selection is None:
            assert (account.visual_tokens, account.visual_tokens_before_selection) == (connected, None)
        else:
            assert account.visual_tokens_before_selection == connected
            assert account.visual_tokens < connected or not connected
        per_layer = account.visual_tokens_per_layer
        assert len(per_layer) == 4
        assert per_layer[0] == account.visual_tokens
        part = engine.method.decoder
        joining = 0 if part is None else part.num_joining(account.visual_tokens, engine.model.facts)
        if joining:
            assert max(per_layer) == account.visual_tokens + joining
        else:
            assert sorted(per_layer, reverse=True) == list(per_layer)
        if part is None:
            assert set(per_layer) == {account.visual_tokens}
        assert 1 <= account.generated_tokens <= SHORT.max_new_tokens
    handle.remove()


def test_tiles_and_routing(answered):
    names = ("vanilla", "single_tile", "all_compress", "vanilla_vir", "vico", "random")
    accounts = {name: [answer.account for answer in answered(name)[1]] for name in names}
    tiles = {name: [account.tiles for account in each] for name, each in accounts.items()}
    compressed = {name: [account.compressed_tiles for account in each] for name, each in accounts.items()}
    assert tiles["vanilla"] == [0, 1, 13, 4, 8]
    assert tiles["single_tile"] == [0, 1, 1, 2, 8]
    assert compressed["vanilla"] == compressed["single_tile"] == [0] * 5
    assert compressed["all_compress"] == [0, 1, 13, 4, 8]
    assert compressed["vanilla_vir"] == compressed["vico"]
    assert 0 < sum(compressed["vico"]) < 26
    grids = {name: [account.grids for account in each] for name, each in accounts.items()}
    whole = [(), ((1, 1, 1),), ((4, 3, 13),), ((1, 1, 1), (2, 1, 3)), ((1, 1, 1),) * 8]
    assert grids["vico"] == grids["vanilla"] == whole
    assert grids["single_tile"] == [((1, 1, 1),) * images for images in (0, 1, 1, 2, 8)]
    places = {name: [account.compressed for account in each] for name, each in accounts.items()}
    assert places["all_compress"][2] == tuple(range(13))
    assert [place for place, score in enumerate(accounts["vico"][2].p_compress) if score >= 0.4] == [*places["vico"][2]]
    assert {name: [len(each) for each in of] for name, of in places.items()} == compressed
    assert all(account.p_compress is None for account in accounts["random"])
    assert [len(account.p_compress or ()) for account in accounts["vico"]] == [0, 1, 13, 4, 8]


def test_nothing_compressed_is_the_plain_model(make_engine, answered, requests):
    _, plain = answered("vanilla")
    routed = make_engine("vico", absolute_threshold=1.0).answer(requests)
    assert [answer.text for answer in routed] == [answer.text for answer in plain]
    # The random connector gives other tokens, so compressing must show in the answers.
    _, squeezed = answered("all_compress")
    assert [answer.text for answer in squeezed[1:]] != [answer.text for answer in plain[1:]]


def test_an_uncached_forward_over_the_same_tokens_gives_the_same_answer(make_engine, requests):
    engine = make_engine("vico")
    model, prepared = engine.model, engine.preprocessor(requests[2])
    with torch.inference_mode():
        (ready,) = engine.rows[0].ready([prepared])
    prompt = engine.rows[0].prompt(ready)
    ids, generated = prompt.input_ids, engine.rows[0].generate([prompt], SHORT)[0].tokens
    with torch.inference_mode():
        for position, token in enumerate(generated):
            so_far = torch.tensor([ids + generated[:position]])
            logits = model.language_model(
                inputs_embeds=model.embed(so_far, prompt.visual_tokens), use_cache=False
            ).logits
            assert logits[0, -1].argmax().item() == token


def test_stop_strings_end_the_answer_and_settings_are_kept_apart(make_engine, requests):
    engine = make_engine("vanilla", batch_size=4)
    long = GenerationSettings(max_new_tokens=6)
    full = engine.answer([request(2, ImageInput(picture(4, 3, seed=2)), settings=long)])[0].text
    stop = full[2]
    until = GenerationSettings(max_new_tokens=6, until=(stop,))
    both = engine.answer(
        [request(2, ImageInput(picture(4, 3, seed=2)), settings=settings) for settings in (until, long)]
    )
    assert both[0].text == full.split(stop, 1)[0].strip()
    assert both[1].text == full
    assert both[0].account.generated_tokens < both[1].account.generated_tokens


def test_an_account_says_why_its_answer_ended(make_engine, requests):
    engine = make_engine("vanilla", batch_size=4)

    def ended(limit, *until):
        settings = GenerationSettings(max_new_tokens=limit, until=until)
        return engine.answer([request(2, ImageInput(picture(4, 3, seed=2)), settings=settings)])[0]

    full = ended(6)
    assert (full.account.finish, full.account.generated_tokens) == ("length", 6)
    stop = full.text[2]
    stopped = ended(6, stop).account
    assert (stopped.finish, ended(6, "no such text").account.finish) == ("stop", "length")
    # The last token that is allowed completes the stop string.
    assert ended(stopped.generated_tokens, stop).account == stopped
    assert ended(stopped.generated_tokens).account.finish == "length"


def test_an_end_of_text_is_an_end_also_as_the_last_token_that_is_allowed():
    engine = open_engine({"pretrained": "vico-tiny-base", "device": "cpu"}, show_progress=False).engine
    ask = [request(2, ImageInput(picture(4, 3, seed=2)), settings=GenerationSettings(max_new_tokens=32))]
    account = engine.answer(ask)[0].account
    assert account.finish == "stop"
    limits = (account.generated_tokens, account.generated_tokens - 1)
    short = [replace(ask[0], generation=GenerationSettings(max_new_tokens=limit)) for limit in limits]
    assert [answer.account.finish for answer in engine.answer(short)] == ["stop", "length"]


def test_sampling_repeats_itself_and_beams_run(make_engine, requests):
    engine = make_engine("vico")
    sampled = GenerationSettings(max_new_tokens=6, do_sample=True, temperature=1.5)
    one = request(2, ImageInput(picture(4, 3, seed=2)), settings=sampled)
    assert engine.answer([one])[0].text == engine.answer([one])[0].text
    beams = GenerationSettings(max_new_tokens=6, num_beams=3)
    assert engine.answer([request(2, ImageInput(picture(4, 3, seed=2)), settings=beams)])[0].account.generated_tokens


def test_deferred_requests_are_made_when_their_turn_comes(make_engine):
    # lmms-eval hands over whole benchmarks at once; their open pictures would take tens of GB.
    engine = make_engine("vanilla")
    made, made_at_answer, answers = [], [], []

    def deferred(number):
        def load():
            made.append(number)
            return request(number, ImageInput(picture(1, 1, seed=number)))

        return DeferredRequest(f"mixed/test/{number}", SHORT, load)

    for _, answer in engine.outcomes([deferred(number) for number in range(20)]):
        made_at_answer.append(len(made))
        answers.append(answer)
    assert [answer.key for answer in answers] == [f"mixed/test/{number}" for number in range(20)]
    assert sorted(made) == list(range(20))
    assert made_at_answer[0] <= 5
    assert answers[3] == engine.answer([request(3, ImageInput(picture(1, 1, seed=3)))])[0]


def test_a_repeated_document_is_sampled_anew(make_engine):
    # Benchmarks that count passes among many answers ask the same request several times.
    engine = make_engine("vanilla")
    sampled = GenerationSettings(max_new_tokens=6, do_sample=True, temperature=2.0)
    one = request(1, ImageInput(picture(1, 1, seed=1)), settings=sampled)
    answers = [answer.text for answer in engine.answer([one] * 4)]
    assert len(set(answers)) > 1
    assert [answer.text for answer in engine.answer([one] * 4)] == answers


def test_decoding_is_cached_whatever_the_checkpoint_says(make_engine, requests):
    engine = make_engine("vanilla")
    engine.model.language_model.generation_config.use_cache = False
    lengths = []
    handle = engine.model.language_model.model.layers[0].register_forward_pre_hook(
        lambda _, args: lengths.append(args[0].shape[1])
    )
    account = engine.answer([requests[1]])[0].account
    handle.remove()
    assert lengths == [account.visual_tokens + account.text_tokens] + [1] * (account.generated_tokens - 1)


def test_a_failing_batch_is_halved_until_it_fits(make_engine, requests, same_answers):
    engine = make_engine("vanilla", batch_size=5)
    expected = engine.answer(requests)
    sizes = []

    def no_room(module, args, kwargs):
        if kwargs.get("inputs_embeds") is not None and kwargs["inputs_embeds"].shape[1] > 1:
            sizes.append(len(kwargs["inputs_embeds"]))
            if sizes[-1] > 2:
                raise torch.OutOfMemoryError("no room for so many")

    handle = engine.model.language_model.model.register_forward_pre_hook(no_room, with_kwargs=True)
    assert same_answers(engine.answer(requests), expected)
    handle.remove()
    assert sizes == [5, 2, 3, 1, 2]


def test_documents_that_fail_leave_the_others_their_answers(make_engine, requests, tmp_path, same_answers):
    engine = make_engine("vanilla", batch_size=4)
    broken = request(9, ImageInput(tmp_path / "missing.png"))
    engine.model.config.text_config.max_position_embeddings = 200  # number 2 has 246 tokens
    outcomes = dict(engine.outcomes([requests[0], broken, requests[1], requests[2], requests[3]]))
    assert isinstance(outcomes[1], DocumentError)
    assert "missing.png does not exist" in str(outcomes[1])
    assert isinstance(outcomes[3], DocumentError)
    assert "mixed/test/2 failed twice" in str(outcomes[3])
    assert same_answers([outcomes[0], outcomes[2], outcomes[4]], engine.answer([requests[0], requests[1], requests[3]]))


def test_what_is_known_is_not_answered_again_and_the_rest_is_as_if_nothing_were(make_engine):
    # Sampled answers depend on their batch, so these show whether batches stay the same.
    engine = make_engine("vanilla", batch_size=2)
    sampled = GenerationSettings(max_new_tokens=6, do_sample=True, temperature=2.0)
    made = []

    def deferred(number):
        def load():
            made.append(number)
            return request(number, ImageInput(picture(1 + number % 3, 1, seed=number)), settings=sampled)

        return DeferredRequest(f"mixed/test/{number}", sampled, load)

    asked = [deferred(number) for number in range(20)]
    whole = dict(engine.outcomes(asked))
    made.clear()
    known = set(range(9)) | {12}
    rest = dict(engine.outcomes(asked, known))
    assert set(rest) == set(range(20)) - known
    assert rest == {number: whole[number] for number in rest}
    assert set(made) == set(range(8, 20))  # a window of eight is known whole and not even read
    assert dict(engine.outcomes(asked, range(20))) == {}


def test_a_document_that_fails_twice_is_named(make_engine, requests):
    engine = make_engine("vanilla", batch_size=5)
    account = engine.answer([requests[2]])[0].account

    def refuse_long(module, args, kwargs):
        length = account.visual_tokens + account.text_tokens
        if kwargs.get("inputs_embeds") is not None and kwargs["inputs_embeds"].shape[1] == length:
            raise RuntimeError("too long for me")

    handle = engine.model.language_model.model.register_forward_pre_hook(refuse_long, with_kwargs=True)
    with pytest.raises(DocumentError, match=r"document mixed/test/2 failed twice.*too long for me"):
        engine.answer(requests[:4])  # the longest of these four is number 2
    handle.remove()


def test_a_prompt_beyond_the_decoders_positions_is_named(make_engine, requests):
    engine = make_engine("vanilla", batch_size=2)
    engine.model.config.text_config.max_position_embeddings = 100
    with pytest.raises(DocumentError, match=r"mixed/test/2 failed twice.*prompt has 246 tokens and the decoder 100"):
        engine.answer([requests[0], requests[2]])


def test_an_unreadable_image_names_its_document(make_engine, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\nnot an image")
    with pytest.raises(DocumentError, match=r"mixed/test/9.*broken.png"):
        make_engine("vanilla").answer([request(9, ImageInput(broken))])


def test_pickled_weights_need_a_word(untrained, requests, tmp_path):
    folder = shutil.copytree(untrained / "base", tmp_path / "pickled")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="pass allow_pickle=true"):
        load(str(folder))
    found = load(str(folder), allow_pickle=True, device="cpu").engine.answer(requests[:2])
    assert found == load(str(untrained / "base"), device="cpu").engine.answer(requests[:2])


def test_base_weights_do_not_route(untrained):
    with pytest.raises(CheckpointError, match="has no low connector"):
        load(str(untrained / "base"), method="vico")
