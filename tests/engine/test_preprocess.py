"""From messages to tiles, prompt text and ids."""

import itertools
import threading
import time

import numpy as np
import pytest
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from vico_eval.engine.ahead import prepare_ahead
from vico_eval.engine.preprocess import Preprocessor
from vico_eval.engine.preprocess_settings import PreprocessSettings
from vico_eval.engine.previews import Previews
from vico_eval.engine.requests import GenerationSettings, ImageInput, Message, Request, Text, VideoInput
from vico_eval.engine.tile_limits import tile_limit, total_tile_limit
from vico_eval.engine.words import ControlTokens, Said
from vico_eval.errors import ConfigError, DocumentError, MediaError
from vico_eval.families.internvl.config import VicoInternVLConfig
from vico_eval.families.internvl.prompting import InternVLPrompting, InternVLSettings
from vico_eval.families.internvl.prompts import THINKING_SYSTEM_MESSAGE, get_template
from vico_eval.families.internvl.tiling import tile_image

SLOT = "<img></img>"
SPECIAL = ["<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>", "<ref>", "</ref>", "<|endoftext|>"]


@pytest.fixture(scope="module")
def tokenizer():
    """Byte-pair merges across the newlines around images, so that a wrong cut of the text shows."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["system\nuser\nassistant\n\nFrame1: \nImage-1: \nWhat is it?\n\n"] * 20, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")


OWN = set(InternVLSettings.__dataclass_fields__) - {"max_tiles", "num_frames"}
"""What a checkpoint says; the rest the caller."""


@pytest.fixture
def make(tokenizer):
    def preprocessor(**settings):
        own = {"tile_size": 56, "system_message": ""} | {name: settings.pop(name) for name in OWN & settings.keys()}
        prompting = InternVLPrompting(InternVLSettings(**own))
        return Preprocessor(tokenizer, prompting, PreprocessSettings(**settings))

    return preprocessor


def tiles_of(prepared):
    """[tiles, S, S, 3], of all pictures."""
    return np.concatenate([picture.pieces for picture in prepared.pictures])


def picture(columns=1, rows=1, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (rows * 56, columns * 56, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def ask(*parts, **settings):
    content = tuple(Text(part) if isinstance(part, str) else part for part in parts)
    return Request("task/test/0", (Message("user", content),), **settings)


def image(*args, **kwargs):
    return ImageInput(picture(*args, **kwargs))


def asked(prepared):
    """What the user says in the last turn."""
    return prepared.text.rpartition("<|im_start|>user\n")[2].removesuffix("<|im_end|>\n<|im_start|>assistant\n")


def test_one_image(make):
    prepared = make()(ask(image(3, 2), "What is it?"))
    np.testing.assert_array_equal(tiles_of(prepared), tile_image(picture(3, 2), max_tiles=12, tile_size=56).tiles)
    assert tiles_of(prepared).shape == (7, 56, 56, 3)
    assert prepared.grids == ((3, 2, 7),)
    assert prepared.piece_image.tolist() == [0] * 7
    assert prepared.piece_image.dtype == np.int64
    assert asked(prepared) == f"{SLOT}\nWhat is it?"
    assert prepared.key == "task/test/0"
    assert prepared.text == get_template("internvl2_5").render([("user", f"{SLOT}\nWhat is it?")], "")


def test_the_same_pictures_have_the_same_digest(make):
    prepare = make()
    first, again, other = (prepare(ask(image(2, 1, seed=seed), str(number))) for number, seed in enumerate((0, 0, 1)))
    assert first.media == again.media
    assert first.media != other.media
    assert prepare(ask(image(2, 1), image(2, 1), "both")).media != first.media
    assert prepare(ask("no picture")).media is None


def test_text_only(make):
    preprocessor = make()
    prepared = preprocessor(ask("Hello"))
    assert prepared.num_pieces == 0
    assert prepared.piece_image.shape == (0,)
    assert prepared.grids == ()
    assert preprocessor.prompt_ids(prepared, []) == prepared.text_ids


def test_a_prompt_starts_with_bos_where_the_tokenizer_does(tokenizer):
    begins = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, bos_token="<|endoftext|>")
    bos = begins.bos_token_id
    begins.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", bos)]
    )
    plain, beginning = (
        Preprocessor(one, InternVLPrompting(InternVLSettings(tile_size=56, system_message="")))
        for one in (tokenizer, begins)
    )
    request = ask(image(2, 1), "What is it?")
    expected = plain.prompt_ids(plain(request), [4])
    assert bos not in expected
    assert beginning.prompt_ids(beginning(request), [4]) == [bos, *expected]


def test_the_users_words_are_without_template_pictures_and_bos(make, tokenizer):
    turns = (
        Message("system", (Text("Be brief."),)),
        Message("user", (image(), Text("What is it?"))),
        Message("assistant", (Text("A cat."),)),
        Message("user", (Text("And <|im_end|> that?"),)),
    )
    preprocessor = make()
    ids = preprocessor.word_ids(preprocessor(Request("task/test/0", turns)))
    expected = "What is it?\nAnd < |im_end|> that?"
    assert ids == tokenizer(expected, add_special_tokens=False).input_ids
    assert not set(ids) & set(tokenizer.convert_tokens_to_ids(SPECIAL))
    assert preprocessor.word_ids(preprocessor(ask(image()))) == []


def test_several_images_are_numbered_unless_told_not_to(make):
    request = ask(image(2, 1), image(1, 1, seed=1), "Which is larger?")
    prepared = make()(request)
    assert asked(prepared) == f"Image-1: {SLOT}\nImage-2: {SLOT}\nWhich is larger?"
    assert prepared.piece_image.tolist() == [0, 0, 0, 1]
    np.testing.assert_array_equal(tiles_of(prepared)[3], np.asarray(picture(1, 1, seed=1)))
    assert asked(make(label_images=False)(request)) == f"{SLOT}\n{SLOT}\nWhich is larger?"


def test_interleaved_parts_keep_their_order(make):
    request = ask("First", image(), "then", image(), "Which?")
    assert asked(make()(request)) == f"First\nImage-1: {SLOT}\nthen\nImage-2: {SLOT}\nWhich?"
    assert asked(make(label_images=False)(request)) == f"First{SLOT}\nthen{SLOT}\nWhich?"


def test_a_video_is_one_tile_a_frame(make, tmp_path, write_video, shown):
    path = write_video(tmp_path / "clip.mp4", 21, size=64)
    prepared = make(num_frames=4)(ask(VideoInput(path), "What happens?"))
    frames = "".join(f"Frame{number}: {SLOT}\n" for number in (1, 2, 3, 4))
    assert asked(prepared) == f"{frames}What happens?"
    assert prepared.piece_image.tolist() == [0, 1, 2, 3]
    assert shown(tiles_of(prepared)) == [2, 7, 12, 17]


def test_a_video_and_an_image(make, tmp_path, write_video):
    path = write_video(tmp_path / "clip.mp4", 2)
    prepared = make()(ask("Clip", VideoInput(path), image(2, 1), "Same?"))
    assert asked(prepared) == f"Clip\nFrame1: {SLOT}\nFrame2: {SLOT}\n{SLOT}\nSame?"
    assert prepared.piece_image.tolist() == [0, 1, 2, 2, 2]
    assert prepared.grids == ((1, 1, 1), (1, 1, 1), (2, 1, 3))


def test_pictures_are_kept_under_their_digest_and_number(make, tmp_path, write_video, shown):
    clip = write_video(tmp_path / "clip.mp4", 21)
    prepare = make(num_frames=20)
    request = ask(image(2, 1), VideoInput(clip), ImageInput(picture(), is_previewed=False), image(1, 2), "Same?")
    without = prepare(request)
    prepare.previews = Previews(tmp_path / "previews")
    kept = prepare(request)
    assert (kept.text_ids, kept.media) == (without.text_ids, without.media)
    assert prepare(ask("No picture.")).media is None
    folder = tmp_path / "previews" / kept.media[:2]
    assert [path.parent for path in folder.parent.rglob("*.jpg")] == [folder] * 10
    # The video's 20 frames are pictures 1 to 20; kept are those in the middle of eight stretches of 19 / 8 frames.
    frames = [2, 4, 7, 9, 12, 14, 16, 19]
    assert {path.name for path in folder.iterdir()} == {f"{kept.media}-{number}.jpg" for number in (0, *frames, 22)}
    first, last = (Image.open(folder / f"{kept.media}-{number}.jpg").size for number in (0, 22))
    assert (first, last) == ((112, 56), (56, 112))
    tiles = shown(tiles_of(kept)[3:23])
    assert shown(Image.open(folder / f"{kept.media}-{number}.jpg") for number in frames) == [
        tiles[number - 1] for number in frames
    ]


def test_history_keeps_its_images_and_numbers_run_on(make):
    turns = (
        Message("user", (image(), Text("What?"))),
        Message("assistant", (Text("A cat."),)),
        Message("user", (image(), Text("And this?"))),
    )
    assert make()(Request("a/b/0", turns)).text == (
        f"<|im_start|>system\n<|im_end|>\n<|im_start|>user\nImage-1: {SLOT}\nWhat?<|im_end|>\n"
        f"<|im_start|>assistant\nA cat.<|im_end|>\n"
        f"<|im_start|>user\nImage-2: {SLOT}\nAnd this?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_limits_on_tiles(make):
    big = picture(4, 3)
    count = lambda preprocessor, **limit: preprocessor(ask(ImageInput(big), "?", **limit)).num_pieces  # noqa: E731
    assert count(make()) == 13
    assert count(make(max_tiles=6)) == 7
    assert count(make(max_tiles=6), max_tiles=12) == 13  # the request's limit wins
    assert count(make(max_tiles=1)) == 1
    assert count(make(min_tiles=4), max_tiles=1) == 1
    assert count(make(use_thumbnail=False)) == 12


@pytest.mark.parametrize(("num_images", "expected"), [(1, 12), (2, 12), (6, 4), (20, 1), (30, 1)])
def test_images_share_a_total(make, num_images, expected):
    # 24 tiles in all: 24, 12, 4, 1 and 0 each, at least 1 and at most 12. A 4x3 picture uses whatever it may.
    prepared = make(total_max_tiles=24, use_thumbnail=False)(ask(*[image(4, 3)] * num_images, "?"))
    assert np.bincount(prepared.piece_image).tolist() == [expected] * num_images


def test_the_requests_total_wins(make):
    request = ask(image(4, 3), image(4, 3), "?", total_max_tiles=8)
    prepared = make(total_max_tiles=24, use_thumbnail=False)(request)
    assert np.bincount(prepared.piece_image).tolist() == [4, 4]


@pytest.mark.parametrize("size", [(56, 56), (224, 168), (9, 700), (1, 1), (113, 57)])
@pytest.mark.parametrize(("use_thumbnail", "pieces"), [(True, 5), (False, 4)])
def test_a_grid_is_the_same_for_every_shape(make, size, use_thumbnail, pieces):
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    shown = Image.fromarray(pixels)
    preprocessor = make(tiles="2x2", use_thumbnail=use_thumbnail)
    # A benchmark's own limits, which come with the request, are for cutting by shape.
    prepared = preprocessor(ask(ImageInput(shown), ImageInput(shown), "?", max_tiles=1, total_max_tiles=1))
    assert prepared.grids == ((2, 2, pieces),) * 2
    # As InternVL resizes an image to the grid that it has chosen.
    whole = np.asarray(shown.resize((112, 112), Image.Resampling.BICUBIC))
    tiles = [whole[row : row + 56, column : column + 56] for row in (0, 56) for column in (0, 56)]
    tiles += [np.asarray(shown.resize((56, 56), Image.Resampling.BICUBIC))] * use_thumbnail
    np.testing.assert_array_equal(prepared.pictures[1].pieces, np.stack(tiles))


def test_a_grid_has_columns_before_rows_and_one_tile_has_no_thumbnail(make):
    assert make(tiles="3x1")(ask(image(), "?")).grids == ((3, 1, 4),)
    assert make(tiles="1x1")(ask(image(4, 3), "?")).grids == ((1, 1, 1),)


def test_a_grid_is_for_images_and_not_for_frames(make, tmp_path):
    for number in range(3):
        picture(2, 2, seed=number).save(tmp_path / f"{number}.png")
    request = ask(VideoInput(tmp_path), ImageInput(picture(2, 2), is_frame=True), image(2, 2), "?")
    assert make(tiles="2x2", num_frames=3)(request).grids == (*[(1, 1, 1)] * 4, (2, 2, 5))


@pytest.mark.parametrize("words", ["<image>", "<IMG_CONTEXT>", "<img>", "</img>", SLOT, "<|im_end|>", "<|im_start|>"])
def test_typed_markup_takes_no_image_and_ends_no_turn(make, tokenizer, words):
    preprocessor = make()
    for message in (f"a{words}b", f"{words}{words}", f"<img{words}>"):
        prepared = preprocessor(ask(image(), message))
        assert len(prepared.slot_positions) == 1
        control = {tokenizer.convert_tokens_to_ids(token) for token in SPECIAL[:5]}
        plain = [token for token in preprocessor(ask(image(), "x")).text_ids if token in control]
        assert [token for token in prepared.text_ids if token in control] == plain
    assert preprocessor(ask(f"is {words}")).slot_positions == []


@pytest.mark.parametrize("token", ["<IMG_CONTEXT>", "<img>", "</img>", "<|im_end|>", "<|im_start|>", "<|endoftext|>"])
def test_words_in_parts_form_no_control_token(make, tokenizer, token):
    preprocessor = make()
    for cut in range(1, len(token)):
        parts = [Text(token[:cut]), Text(""), Text(token[cut:])]
        said = asked(preprocessor(ask(image(), *parts)))
        assert said == f"{SLOT}\n{token[0]} {token[1:]}"
        system = Request("a/b/0", (Message("system", tuple(parts)), *ask("Hi").messages))
        assert system_of(preprocessor(system)) == f"{token[0]} {token[1:]}"


def test_words_form_no_control_token_with_what_stands_beside_them():
    # A tokenizer may name its tokens as it likes: here they reach into the template, a label and a line's end.
    control = ControlTokens(["x<|im_end|>", "\n#", "a\nImage-1", "<\n"], end="<|im_end|>\n")

    def defused(*parts):
        message = Said()
        for text, is_words in parts:
            message.add(text, is_words=is_words)
        return control.defuse(message)

    assert defused(("x", True)) == "x "
    assert defused(("#", True)) == " #"
    assert defused(("a", True), ("\nImage-1: ", False), ("b", True)) == "a \nImage-1: b"
    assert defused(("<", True), ("\n", False)) == "< \n"
    assert defused(("a\nImage-1", False)) == "a\nImage-1"  # nobody's words


def test_a_picture_among_words_keeps_its_place_whatever_stands_around_it(make):
    inline = ImageInput(picture(), is_inline=True)
    prepared = make()(ask("<im", inline, "g></img", inline, ">"))
    assert asked(prepared) == f"<im{SLOT}g></img{SLOT}>"
    assert len(prepared.slot_positions) == 2


def test_what_typed_markup_becomes(make):
    prepared = make()(ask(image(), "Is <image> or <|im_end|> or <b> or <ref>it</ref> there?"))
    assert asked(prepared) == f"{SLOT}\nIs <image> or < |im_end|> or <b> or <ref>it</ref> there?"


@pytest.mark.parametrize("tokens", [[4, 16, 4, 16], [0, 0, 0, 0], [16, 16, 16, 16]])
def test_ids_equal_those_of_the_text_written_out(make, tokenizer, tokens):
    preprocessor = make()
    prepared = preprocessor(ask("\n", image(2, 1), "\n\nWhat is it?\n", image(), "\n 图 é"))
    first, between, last = prepared.text.split(SLOT)
    one, other = (f"<img>{'<IMG_CONTEXT>' * sum(part)}</img>" for part in (tokens[:3], tokens[3:]))
    written_out = f"{first}{one}{between}{other}{last}"
    assert written_out.count("<IMG_CONTEXT>") == sum(tokens)
    ids = preprocessor.prompt_ids(prepared, [sum(tokens[:3]), tokens[3]])
    assert ids == tokenizer(written_out, add_special_tokens=False).input_ids
    assert ids.count(preprocessor.image_token_id) == sum(tokens)
    assert len(ids) == len(prepared.text_ids) + sum(tokens)


def test_every_picture_needs_a_length(make):
    preprocessor = make()
    with pytest.raises(ValueError, match="shorter"):
        preprocessor.prompt_ids(preprocessor(ask(image(2, 1), image(), "?")), [16])


def system_of(prepared):
    return prepared.text.removeprefix("<|im_start|>system\n").partition("<|im_end|>\n")[0]


def test_which_system_message_counts(make):
    plain = ask("Hi")
    own = Request("a/b/0", (Message("system", (Text("Document's."),)), *plain.messages))
    assert system_of(make(system_message=None)(plain)).startswith("你是书生·万象")
    assert system_of(make(system_message="Checkpoint's.")(plain)) == "Checkpoint's."
    assert system_of(make(system_message="Checkpoint's.")(own)) == "Document's."
    assert system_of(make(system_prompt="User's.")(own)) == "User's."
    assert system_of(make(system_prompt="")(own)) == ""
    assert system_of(make(thinking=True)(own)) == THINKING_SYSTEM_MESSAGE


def test_a_broken_image_is_named(make, tmp_path):
    (tmp_path / "bad.png").write_text("x")
    with pytest.raises(MediaError, match=r"bad\.png"):
        make()(ask(ImageInput(tmp_path / "bad.png"), "?"))


def test_settings_from_a_checkpoint():
    config = VicoInternVLConfig(template="Hermes-2", system_message="Hi.", max_tiles=5, use_thumbnail=False)
    assert InternVLSettings.of(config) == InternVLSettings(
        tile_size=448, template="Hermes-2", system_message="Hi.", max_tiles=5, use_thumbnail=False, num_frames=64
    )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"max_tiles": 0}, "max_tiles=0"),
        ({"num_frames": 1.5}, "num_frames=1.5"),
        ({"total_max_tiles": -1}, "total_max_tiles=-1"),
        *(
            ({"tiles": wrong}, f"Got tiles={wrong!r}; expected columns x rows of an image's grid, as in 2x2")
            for wrong in (
                "2",
                "2x",
                "x2",
                "0x2",
                "2x0",
                "2x2x2",
                "-1x2",
                "2 x 2",
                "2X2",
                "02x2",
                "",
                4,
                "9" * 99 + "x1",
            )
        ),
        ({"tiles": "64x65"}, "Got tiles=64x65, 4160 tiles per image; expected at most 4096"),
        ({"tiles": "2x2", "max_tiles": 4}, "Got tiles=2x2 and max_tiles; .* Leave out max_tiles, or tiles"),
        (
            {"tiles": "2x2", "max_tiles": 4, "total_max_tiles": 4},
            "Got tiles=2x2 and max_tiles and total_max_tiles; .* Leave out max_tiles and total_max_tiles, or tiles",
        ),
        ({"thinking": True, "system_prompt": "x"}, "Leave out one of them"),
        ({"template": "vicuna"}, "known are internvl2_5"),
    ],
)
def test_wrong_settings(make, wrong, message):
    with pytest.raises(ConfigError, match=message):
        make(**wrong)


def test_a_tokenizer_without_image_tokens():
    plain = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()))
    with pytest.raises(ConfigError, match="no token <img>, </img>, <IMG_CONTEXT>"):
        Preprocessor(plain, InternVLPrompting(InternVLSettings()))


def test_threads_prepare_the_same_in_order(make):
    preprocessor = make()
    requests = [
        Request(f"task/test/{number}", ask(image(1 + number % 3, 1, seed=number), f"Number {number}?").messages)
        for number in range(24)
    ]
    ahead = list(prepare_ahead(preprocessor, requests, workers=4))
    for request, prepared in zip(requests, ahead, strict=True):
        alone = preprocessor(request)
        assert (prepared.key, prepared.text_ids) == (alone.key, alone.text_ids)
        np.testing.assert_array_equal(tiles_of(prepared), tiles_of(alone))


def test_no_more_is_prepared_than_may_wait():
    started = []
    requests = (ask("Hi") for _ in itertools.count())
    prepared = prepare_ahead(started.append, requests, workers=2, ahead=3)
    next(prepared)
    next(prepared)
    prepared.close()
    assert len(started) <= 4


def test_a_failure_names_the_document_and_the_others_are_prepared():
    def prepare(request):
        if request.key == "task/test/1":
            raise MediaError("no such image")
        return request.key

    requests = [Request(f"task/test/{number}", ask("Hi").messages) for number in range(5)]
    prepared = list(prepare_ahead(prepare, requests, workers=2))
    assert isinstance(prepared[1], DocumentError)
    assert str(prepared[1]) == "document task/test/1 can't be prepared: no such image"
    assert [entry for number, entry in enumerate(prepared) if number != 1] == [
        f"task/test/{number}" for number in (0, 2, 3, 4)
    ]


def test_whoever_stops_early_leaves_no_thread_behind():
    def prepare(request):
        time.sleep(0.01)
        return request.key

    requests = [Request(f"task/test/{number}", ask("Hi").messages) for number in range(50)]
    prepared = prepare_ahead(prepare, requests, workers=2)
    assert next(prepared) == "task/test/0"
    prepared.close()
    assert not any(thread.name.startswith("prepare") for thread in threading.enumerate())


def test_generation_settings_travel_along(make):
    generation = GenerationSettings(max_new_tokens=5)
    assert make()(ask("Hi", generation=generation)).generation is generation


@pytest.mark.parametrize(
    ("task", "limit"),
    [
        ("gqa", 6),
        ("chartqa", 12),
        ("chartqapro", 6),
        ("mmmu_val", 12),
        ("docvqa_val", 18),
        ("DocVQA_VAL", 18),
        ("infovqa_val", 24),
        ("ocrbench", 24),
        ("tiny_read", None),
    ],
)
def test_tile_limits(task, limit):
    assert tile_limit(task) == limit
    assert tile_limit(task, 3) == 3


def test_total_tile_limits():
    assert total_tile_limit("blink_jigsaw") == 64
    assert total_tile_limit("MMIU") == 12
    assert total_tile_limit("mmiu", 20) == 20
