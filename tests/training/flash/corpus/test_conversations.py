"""Lines and rows as conversations, and what makes one corrupt."""

from pathlib import Path

import pytest

from vico_eval.engine.requests import ImageInput, Message, Text, VideoInput
from vico_eval.training.flash.corpus.conversations import Columns, CorruptSample, Reading, from_line, from_row

READING = Reading(root=Path("/root"), max_tiles=6, augment=True)


def read(line):
    return from_line("file:1", line, READING)


def parts(line, turn=0):
    return read(line).messages[turn].content


def inline(name):
    return ImageInput(Path("/root") / name, is_inline=True)


def test_pictures_stand_where_their_marks_are(say):
    said = say(
        "See <image> and <image>\nWhich?", "The first.", "And <image>?", "No.", image=["a.png", "b.png", "c.png"]
    )
    conversation = read(said)
    assert conversation.messages == (
        Message("user", (Text("See "), inline("a.png"), Text(" and "), inline("b.png"), Text("\nWhich?"))),
        Message("assistant", (Text("The first."),)),
        Message("user", (Text("And "), inline("c.png"), Text("?"))),
        Message("assistant", (Text("No."),)),
    )
    assert (conversation.key, conversation.max_tiles, conversation.augment) == ("file:1", 6, True)


def test_a_single_picture_without_a_mark_goes_before_the_first_words_of_a_human(say):
    said = say("What?", "A cat.", image="a.png")
    said["conversations"].insert(0, {"from": "system", "value": "Be brief."})
    assert read(said).messages[:2] == (
        Message("system", (Text("Be brief."),)),
        Message("user", (inline("a.png"), Text("\n"), Text("What?"))),
    )
    assert parts(say("What?", "A cat.", image=["a.png"])) == (inline("a.png"), Text("\n"), Text("What?"))
    # Where a later turn has the mark, that is its place.
    assert parts(say("Hello.", "Hi.", "<image> What?", "A cat.", image="a.png")) == (Text("Hello."),)


@pytest.mark.parametrize("words", ["<video>\nWhat?", "What?"])
def test_a_video_takes_its_line_break(say, words):
    said = say(words, "A cat.", video="a.mp4", clip=[1, 2.5])
    film, *rest = parts(said)
    assert film == VideoInput(Path("/root/a.mp4"), start_s=1, end_s=2.5)
    assert "".join(part.text for part in rest) == "What?"


def test_marks_of_a_sample_without_media_and_of_an_answer_are_words(say):
    assert parts(say("Is <video> HTML? <image>", "Yes.")) == (Text("Is <video> HTML? <image>"),)
    assert parts(say("<image>", "It is <image>.", image="a.png"), turn=1) == (Text("It is <image>."),)
    assert parts(say("Hello.", "Hi.", image="")) == parts(say("Hello.", "Hi.", image=[])) == (Text("Hello."),)


def test_an_absolute_path_stays(say):
    assert parts(say("<image>", "Yes.", image="/other/a.png")) == (inline("/other/a.png"),)


def test_leading_space_of_an_answer_is_dropped(say):
    assert parts(say("What?", "\n \nA cat. ", image=""), turn=1) == (Text("A cat. "),)


def test_stated_sizes_and_lengths(say):
    assert read(say("<image>", "Yes.", image="a.png", width=4, height=3)).image_sizes == ((4, 3),)
    two = say("<image><image>", "Yes.", image=["a.png", "b.png"], width_list=[4, 6], height_list=[3, 5], length=99)
    assert read(two).image_sizes == ((4, 3), (6, 5))
    assert read(two).length == 99
    # They only estimate a length, so nonsense in them is no reason to skip a sample.
    odd = read(say("<image>", "Yes.", image="a.png", width="4", height=3, length="many"))
    assert (odd.image_sizes, odd.length) == ((), None)


CORRUPT = [
    ("marks", {"said": ["<image><image>", "Yes."], "image": "a.png"}, "2 places for 1"),
    ("marks", {"said": ["<image>", "Yes."], "image": ["a.png", "b.png"]}, "1 places for 2"),
    ("marks", {"said": ["What?", "Yes."], "image": ["a.png", "b.png"]}, "0 places for 2"),
    ("marks", {"said": ["<video><video>", "Yes."], "video": "a.mp4"}, "video"),
    ("turns", {"said": ["What?"]}, "question and its answer last"),
    ("turns", {"said": ["What?", "Yes.", "Why?"]}, "question and its answer last"),
    ("turns", {"said": []}, "no conversations"),
    ("empty answer", {"said": ["What?", " \n"]}, "says nothing"),
    ("empty answer", {"said": ["What?", "", "Why?", "So."]}, "says nothing"),
    ("media", {"said": ["<image>", "Yes."], "image": 3}, "int"),
    ("line", {"said": ["What?", 3]}, "int"),
    ("line", {"said": ["<video>", "Yes."], "video": "a.mp4", "clip": "all"}, "two moments"),
    ("turns", {"said": ["<video>", "Yes."], "video": "a.mp4", "clip": [3, 1]}, "start < end"),
]


@pytest.mark.parametrize(("kind", "given", "reason"), CORRUPT)
def test_corrupt_lines(say, kind, given, reason):
    said = given.pop("said") if "said" in given else []
    with pytest.raises(CorruptSample, match=reason) as caught:
        read(say(*said, **given))
    assert caught.value.kind == kind


def test_unknown_roles_and_lines_that_are_no_object(say):
    said = say("What?", "Yes.")
    said["conversations"][0]["from"] = "function"
    with pytest.raises(CorruptSample, match="'function'; expected human, gpt, system"):
        read(said)
    with pytest.raises(CorruptSample, match="holds list"):
        read([said])
    with pytest.raises(CorruptSample, match="holds str"):
        read({"conversations": ["Hello."]})


def row(content, images=()):
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": "Yes."}]
    return from_row("data:0", {"messages": messages, "images": list(images)}, Columns(), READING)


def test_parts_take_the_pictures_of_the_column_in_order():
    part = {"type": "image", "text": None}
    content = [part, {"type": "text", "text": "or"}, {"type": "image", "image": "own.png"}, part]
    images = [{"bytes": b"png", "path": "a.png"}, {"bytes": None, "path": "b.png"}]
    assert row(content, images).messages[0].content == (
        ImageInput(b"png"),
        Text("or"),
        ImageInput(Path("/root/own.png")),
        ImageInput(Path("/root/b.png")),
    )


def test_words_of_a_row_may_hold_marks():
    assert row("See <image>.", ["a.png"]).messages[0].content == (Text("See "), inline("a.png"), Text("."))


@pytest.mark.parametrize(
    ("content", "images", "reason"),
    [
        ([{"type": "image"}], [], "1 places for 0"),
        ([{"type": "text", "text": "x"}], ["a.png", "b.png"], "0 places for 2"),
        ([{"type": "sound"}], [], "'sound'; expected text, image or video"),
        (None, [], "NoneType"),
    ],
)
def test_corrupt_rows(content, images, reason):
    with pytest.raises(CorruptSample, match=reason):
        row(content, images)


def test_the_assistant_shows_no_pictures():
    messages = [{"role": "user", "content": "Draw."}, {"role": "assistant", "content": [{"type": "image"}]}]
    with pytest.raises(CorruptSample, match="holds a picture"):
        from_row("data:0", {"messages": messages, "images": ["a.png"]}, Columns(), READING)
