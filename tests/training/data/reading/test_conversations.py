"""Lines and rows as conversations, and what makes one corrupt."""

from pathlib import Path

import pytest

from vico_eval.engine.requests import ImageInput, Message, Text, VideoInput
from vico_eval.training.data.reading.conversations import Columns, Reading, from_line, from_row
from vico_eval.training.data.reading.corrupt import CorruptSample
from vico_eval.training.data.reading.keys import unread_keys

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


def test_marks_of_an_answer_and_of_a_system_message_are_words(say):
    assert parts(say("<image>", "It is <image>.", image="a.png"), turn=1) == (Text("It is <image>."),)
    said = say("What?", "HTML's <video>.") | {"system": "Never say <image>."}
    assert parts(said) == (Text("Never say <image>."),)
    assert parts(said, turn=2) == (Text("HTML's <video>."),)
    assert parts(say("Hello.", "Hi.", image="")) == parts(say("Hello.", "Hi.", image=[])) == (Text("Hello."),)


@pytest.mark.parametrize("number", [2, 3])
def test_several_pictures_without_marks_go_in_front_each_on_a_line(say, number):
    names = ["a.png", "b.png", "c.png"][:number]
    lines = [part for name in names for part in (inline(name), Text("\n"))]
    said = say("Which?", "This.", image=names)
    assert parts(said) == (*lines, Text("Which?"))
    said["conversations"].insert(0, {"from": "system", "value": "Be brief."})
    assert parts(said, turn=1) == (*lines, Text("Which?"))


def test_several_videos_without_marks_go_in_front(say):
    films = [part for part in parts(say("Which?", "This.", video=["a.mp4", "b.mp4"])) if part != Text("")]
    assert films == [VideoInput(Path("/root/a.mp4")), VideoInput(Path("/root/b.mp4")), Text("Which?")]


@pytest.mark.parametrize("name", ["image", "images", "img"])
@pytest.mark.parametrize("given", ["a.png", ["a.png"]])
def test_other_names_of_images_are_read(say, name, given):
    assert parts(say("<image>\nWhat?", "A cat.", **{name: given})) == (inline("a.png"), Text("\nWhat?"))


def test_messages_with_roles_are_read_as_conversations_are():
    said = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "<image>\n"}, {"type": "text", "text": "What?"}]},
        {"role": "assistant", "content": "A cat."},
    ]
    messages = read({"messages": said, "images": ["a.png"]}).messages
    assert [message.role for message in messages] == ["system", "user", "assistant"]
    assert messages[1].content == (inline("a.png"), Text("\n"), Text("What?"))
    assert read({"conversations": said, "videos": [], "image": "a.png"}).messages == messages


def test_a_system_message_beside_the_turns_is_read(say):
    said = say("What?", "A cat.", system="Be brief.")
    assert read(said).messages[0] == Message("system", (Text("Be brief."),))
    said["conversations"].insert(0, {"from": "system", "value": "Be long."})
    with pytest.raises(CorruptSample, match="have the roles system, system"):
        read(said)


def test_start_and_end_are_a_clip(say):
    film = parts(say("<video>", "Yes.", video="a.mp4", start=1, end=2.5))[0]
    assert film == parts(say("<video>", "Yes.", video="a.mp4", clip=[1, 2.5]))[0]
    assert parts(say("<video>", "Yes.", videos=["a.mp4"], start=1))[0] == VideoInput(Path("/root/a.mp4"), start_s=1)
    # Of a sample without a film they are something else.
    assert parts(say("What?", "Yes.", start="here", clip="no")) == (Text("What?"),)


def test_unread_keys_are_those_that_hold_something_and_change_nothing(say):
    line = say("What?", "Yes.", id=3, image="a.png", width=3, height=2, tools="[]", start=1, source=None, tags=[])
    line["conversations"][1]["weight"] = 0
    assert list(unread_keys(line)) == ["tools", "start", "conversations[].weight"]
    assert list(unread_keys({"videos": ["a.mp4"], "start": 1, "clip": [1, 2], "system": "x"})) == []


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
    ("marks", {"said": ["<image><image>", "Yes."], "image": "a.png"}, "2 placeholders for 1"),
    ("marks", {"said": ["<image>", "Yes."], "image": ["a.png", "b.png"]}, "1 placeholders for 2"),
    ("marks", {"said": ["<image>", "Yes."]}, "1 placeholders for 0"),
    ("marks", {"said": ["Is <video> HTML?", "Yes."]}, "1 placeholders for 0 videos"),
    ("marks", {"said": ["<image>", "Yes."], "image_path": "a.png"}, "1 placeholders for 0 images"),
    ("marks", {"said": ["<image>\nWhat?", "Yes."], "video": "a.mp4"}, "1 placeholders for 0 images"),
    ("marks", {"said": ["<video>\nWhat?", "Yes."], "image": "a.png"}, "1 placeholders for 0 videos"),
    ("marks", {"said": ["<image>", "Yes."], "image": ""}, "1 placeholders for 0 images"),
    ("marks", {"said": ["<image><image>", "Yes."], "image": ["a.png"] * 3}, "2 placeholders for 3"),
    ("keys", {"said": ["<image>", "Yes."], "image": "a.png", "images": ["b.png"]}, "image and images, which differ"),
    ("keys", {"said": ["<video>", "Yes."], "video": "a.mp4", "clip": [1, 2], "start": 2}, "expected one of them"),
    ("media", {"said": ["<image>", "Yes."], "image": [None]}, "NoneType"),
    ("media", {"said": ["<image>", "Yes."], "images": [["a.png"]]}, "list"),
    ("line", {"said": ["What?", "Yes."], "system": 3}, "int"),
    ("line", {"said": ["<video>", "Yes."], "video": "a.mp4", "clip": [1, float("nan")]}, "two times"),
    ("line", {"said": ["<video>", "Yes."], "video": "a.mp4", "start": "00:01"}, "start and end"),
    ("line", {"said": ["<video>", "Yes."], "video": "a.mp4", "end": 10**400}, "start and end"),
    ("marks", {"said": ["<video><video>", "Yes."], "video": "a.mp4"}, "video"),
    ("turns", {"said": ["What?"]}, "question and its answer last"),
    ("turns", {"said": ["What?", "Yes.", "Why?"]}, "question and its answer last"),
    ("turns", {"said": []}, "no conversations"),
    ("empty answer", {"said": ["What?", " \n"]}, "has no text"),
    ("empty answer", {"said": ["What?", "", "Why?", "So."]}, "has no text"),
    ("media", {"said": ["<image>", "Yes."], "image": 3}, "int"),
    ("line", {"said": ["What?", 3]}, "int"),
    ("line", {"said": ["<video>", "Yes."], "video": "a.mp4", "clip": "all"}, "two times"),
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
    with pytest.raises(CorruptSample, match="'function'; expected one of human, gpt, user, assistant, system"):
        read(said)
    with pytest.raises(CorruptSample, match="line is a list"):
        read([said])
    with pytest.raises(CorruptSample, match="a turn is a str"):
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
        ([{"type": "image"}], [], "1 placeholders for 0"),
        ([{"type": "text", "text": "<image>"}], ["a.png", "b.png"], "1 placeholders for 2"),
        ([{"type": "image"}, {"type": "text", "text": "<image>"}], ["a.png"], "2 placeholders for 1"),
        ("<image>", [], "1 placeholders for 0"),
        ([{"type": "text", "text": 3}], [], "int"),
        ([{"type": "sound"}], [], "'sound'; expected text, image or video"),
        (None, [], "NoneType"),
    ],
)
def test_corrupt_rows(content, images, reason):
    with pytest.raises(CorruptSample, match=reason):
        row(content, images)


def test_the_assistant_shows_no_pictures():
    messages = [{"role": "user", "content": "Draw."}, {"role": "assistant", "content": [{"type": "image"}]}]
    with pytest.raises(CorruptSample, match="contains an image or video"):
        from_row("data:0", {"messages": messages, "images": ["a.png"]}, Columns(), READING)
