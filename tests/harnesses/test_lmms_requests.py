"""What lmms-eval adds to a task's words and settings is told apart from what the task says."""

import json

import pytest
import yaml
from PIL import Image

from vico_eval.engine.engine import Engine
from vico_eval.engine.generation import GeneratedTokens
from vico_eval.engine.requests import (
    THINKING_GENERATION,
    GenerationSettings,
    ImageInput,
    Message,
    Request,
    Text,
    VideoInput,
)
from vico_eval.errors import ConfigError
from vico_eval.harnesses.lmms_eval.requests import (
    generation_of,
    left_out_until,
    messages_of,
    placed_at_marks,
    system_instruction,
)

ONE, TWO, FILM = ImageInput("1.png"), ImageInput("2.png"), VideoInput("a.mp4")


@pytest.fixture(scope="module")
def model(untrained, tmp_path_factory):
    return open_model(untrained, tmp_path_factory.mktemp("run"))


def open_model(untrained, run, **arguments):
    from lmms_eval.models import MODEL_REGISTRY_V2

    return MODEL_REGISTRY_V2.get_model_class("vanilla_internvl")(
        pretrained=untrained / "vico", device="cpu", record_dir=run, previews=False, **arguments
    )


def load(folder, *names):
    """The tasks of a folder as lmms-eval loads them for a chat model."""
    from lmms_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(folder), include_defaults=False)
    return manager.load_task_or_group(list(names), task_type="chat")


def instances(task, **options):
    task.build_all_requests(**options)
    return task.instances


def evaluate(model, folder, *tasks, **options):
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(folder), include_defaults=False)
    return simple_evaluate(model=model, tasks=list(tasks), task_manager=manager, **options)


def asked_of(model, monkeypatch):
    """The requests that the model's engine gets from now on, made."""
    asked = []
    outcomes = model._engine.row_outcomes

    def listen(requests, known, given_up):
        asked.extend(request.load() for request in requests)
        return outcomes(requests, known, given_up)

    monkeypatch.setattr(model._engine, "row_outcomes", listen)
    return asked


SHORT = {"max_new_tokens": 3}


@pytest.mark.parametrize(
    ("settings", "until", "left_out"),
    [
        ({}, (), ("\n\n",)),
        ({"generation_kwargs": SHORT}, (), ("\n\n",)),
        ({"generation_kwargs": SHORT, "fewshot_delimiter": "\n###\n"}, (), ("\n###\n",)),
        ({"generation_kwargs": SHORT, "fewshot_delimiter": None}, (), ()),
        ({"generation_kwargs": {"until": ["\n\n"]}}, ("\n\n",), ()),
        ({"generation_kwargs": {"until": ["\n\n"], "do_sample": False}}, ("\n\n",), ()),
        ({"generation_kwargs": {"until": "\n\n"}}, ("\n\n",), ()),
        ({"generation_kwargs": {"until": ["Q:", "\n\n"]}}, ("Q:", "\n\n"), ()),
        ({"generation_kwargs": {"until": []}}, (), ()),
        ({"generation_kwargs": SHORT | {"until": ["###"]}, "fewshot_delimiter": "###"}, ("###",), ()),
        ({"include": "named.yaml"}, ("\n\n",), ()),
        ({"include": "unnamed.yaml"}, (), ("\n\n",)),
        (
            {"generation_kwargs": SHORT, "model_specific_generation_kwargs": {"default": {"num_beams": 1}}},
            (),
            ("\n\n",),
        ),
    ],
    ids=str,
)
def test_stop_strings_are_those_that_the_task_names(write_tasks, settings, until, left_out):
    folder = write_tasks(asked=settings)
    (folder / "named.yaml").write_text('generation_kwargs:\n  until: ["\\n\\n"]\n')
    (folder / "unnamed.yaml").write_text("generation_kwargs:\n  max_new_tokens: 4\n")
    found = instances(load(folder, "asked")["asked"])
    assert [generation_of(one, thinking=None).until for one in found] == [until, until]
    assert left_out_until(found, thinks=False) == ({"asked": left_out} if left_out else {})


def test_a_group_or_the_command_line_may_name_them_too(write_tasks, model, monkeypatch):
    folder = write_tasks(asked={"generation_kwargs": SHORT})
    group = {"group": "together", "task": [{"task": "asked", "generation_kwargs": {"until": ["\n\n"]}}]}
    (folder / "together.yaml").write_text(yaml.safe_dump(group))
    ((_, tasks),) = load(folder, "together").items()
    assert generation_of(instances(tasks["asked"])[0], thinking=None).until == ("\n\n",)
    asked = asked_of(model, monkeypatch)
    evaluate(model, folder, "asked", gen_kwargs="until=Q:", limit=1)
    evaluate(model, folder, "asked", gen_kwargs="max_new_tokens=2", limit=1)
    assert [request.generation.until for request in asked] == [("Q:",), ()]


def test_instances_that_lmms_eval_kept_in_its_request_cache_are_told_apart_too(write_tasks):
    import dill

    folder = write_tasks(named={"generation_kwargs": {"until": ["\n\n"]}}, unnamed={"generation_kwargs": SHORT})
    for name, until in (("named", ("\n\n",)), ("unnamed", ())):
        (kept,) = dill.loads(dill.dumps(instances(load(folder, name)[name])[:1]))  # noqa: S301
        assert generation_of(kept, thinking=None).until == until


def test_an_answer_that_begins_with_a_blank_line_is_whole(write_tasks, model):
    folder = write_tasks(asked={"generation_kwargs": {"max_new_tokens": 30}})
    generation = generation_of(instances(load(folder, "asked")["asked"])[0], thinking=None)
    engine: Engine = model._engine
    said = GeneratedTokens(engine.tokenizer("\n\nFirst, look.\n\nA cat.").input_ids, ())
    of_prompt = {"visual_tokens": 0, "visual_tokens_uncompressed": 0, "text_tokens": 0}
    assert engine.rows[0]._finish("a", of_prompt, generation, said).text == "First, look.\n\nA cat."
    assert engine.rows[0]._finish("a", of_prompt, GenerationSettings(until=("\n\n",)), said).text == ""


def test_thinking_leaves_out_all_stop_strings_and_samples_as_the_authors_do(write_tasks):
    folder = write_tasks(
        named={"generation_kwargs": {"until": ["Q:", "\n\n"]}},
        greedy={"generation_kwargs": {"temperature": 0, "max_new_tokens": 9}},
    )
    tasks = load(folder, "named", "greedy")
    named, greedy = (instances(tasks[name])[0] for name in ("named", "greedy"))
    expected = GenerationSettings(max_new_tokens=65536, do_sample=True, temperature=0.6, top_p=0.95)
    assert generation_of(named, thinking=THINKING_GENERATION) == expected
    assert generation_of(greedy, thinking=THINKING_GENERATION) == GenerationSettings(max_new_tokens=9)
    assert left_out_until([named, greedy], thinks=True) == {"named": ("Q:", "\n\n"), "greedy": ("\n\n",)}


def test_what_is_left_out_and_the_system_instruction_are_in_the_record(untrained, write_tasks, tmp_path):
    folder = write_tasks(unnamed={"generation_kwargs": SHORT}, named={"generation_kwargs": SHORT | {"until": ["\n\n"]}})

    def record_after(*tasks, **options):
        evaluate(open_model(untrained, tmp_path), folder, *tasks, **options)
        record = json.loads((tmp_path / "record.json").read_text())
        return record["left_out_until"], record["system_instruction"]

    assert record_after("named") == ({}, None)
    assert record_after("unnamed", system_instruction="Be brief.") == ({"unnamed": ["\n\n"]}, "Be brief.")
    # A continued run keeps what was said of tasks that are not asked again.
    assert record_after("named") == ({"unnamed": ["\n\n"]}, None)


@pytest.mark.parametrize(
    "settings", [{}, {"description": "Answer. ", "fewshot_config": {"sampler": "first_n"}}], ids=str
)
@pytest.mark.parametrize("num_pictures", [0, 1])
def test_a_system_instruction_becomes_the_system_message(write_tasks, model, monkeypatch, settings, num_pictures):
    folder = write_tasks(num_pictures=num_pictures, asked={"generation_kwargs": SHORT} | settings)
    asked = asked_of(model, monkeypatch)
    evaluate(model, folder, "asked", system_instruction="Be brief.\n\nBe right.")
    assert [request.messages[0] for request in asked] == [Message("system", (Text("Be brief.\n\nBe right."),))] * 2
    assert [message.role for message in asked[0].messages] == ["system", "user"]
    asked.clear()
    evaluate(model, folder, "asked")
    assert [message.role for message in asked[0].messages] == ["user"]


def test_a_task_whose_words_change_takes_the_instruction_from_one_whose_words_do_not(write_tasks):
    folder = write_tasks(shuffled={}, steady={})
    found = load(folder, "shuffled", "steady")
    shuffled, steady = (instances(found[name], system_instruction="Be brief.") for name in ("shuffled", "steady"))
    for one in shuffled:
        one.arguments = ("Be brief.In other words?", *one.arguments[1:])
    assert system_instruction(shuffled) is None
    assert system_instruction([*shuffled, *steady]) == "Be brief."


def test_a_documents_own_system_message_stands_behind_the_instruction():
    own = [
        {"role": "system", "content": [{"type": "text", "text": "Own."}]},
        {"role": "user", "content": [{"type": "text", "text": "What?"}]},
    ]
    system, user = messages_of(own, "Be brief.", at_marks=True)
    assert "".join(part.text for part in system.content) == "Be brief.\n\nOwn."
    assert messages_of(own, None, at_marks=True) == (Message("system", (Text("Own."),)), user)


@pytest.mark.parametrize("ours", [{"system_prompt": "Be long."}, {"system_prompt": ""}, {"thinking": True}], ids=str)
def test_two_system_messages_are_refused(untrained, write_tasks, tmp_path, ours):
    folder = write_tasks(asked={})
    (name,) = ours
    with pytest.raises(ConfigError, match=f"both --system_instruction and {name}="):
        evaluate(open_model(untrained, tmp_path, **ours), folder, "asked", system_instruction="Be brief.")


def test_settings_of_lmms_eval_without_effect_are_refused_by_name(write_tasks, model):
    folder = write_tasks(num_pictures=1, asked={"fewshot_config": {"sampler": "first_n"}, "fewshot_split": "test"})
    with pytest.raises(ConfigError, match="--apply_chat_template"):
        evaluate(model, folder, "asked", apply_chat_template=True)
    with pytest.raises(ConfigError, match=r"task asked is to be asked with 1 examples.*--num_fewshot"):
        evaluate(model, folder, "asked", num_fewshot=1)


def test_examples_of_a_task_without_pictures_are_asked(write_tasks, model, monkeypatch):
    few = {"fewshot_config": {"sampler": "first_n"}, "fewshot_split": "test", "generation_kwargs": SHORT}
    asked = asked_of(model, monkeypatch)
    evaluate(model, write_tasks(asked=few), "asked", num_fewshot=1, limit=1)
    assert asked[0].messages[-1].content == (Text("Which? yes\n\nWhat?"),)


def inline(image):
    return ImageInput(image.source, is_inline=True)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([ONE, Text("Question: <image>\nWhat?")], [Text("Question: "), inline(ONE), Text("\nWhat?")]),
        ([ONE, TWO, Text("<image> or <image>")], [inline(ONE), Text(" or "), inline(TWO)]),
        (
            [ONE, TWO, Text("A <image>"), Text("B <image>?")],
            [Text("A "), inline(ONE), Text("B "), inline(TWO), Text("?")],
        ),
        ([ONE, Text("Which?"), Text("A: <image>")], [Text("Which?"), Text("A: "), inline(ONE)]),
        ([FILM, ONE, Text("Is <image> in it?")], [FILM, Text("Is "), inline(ONE), Text(" in it?")]),
    ],
)
def test_images_stand_at_their_marks(parts, expected):
    assert placed_at_marks(parts) == tuple(expected)


@pytest.mark.parametrize(
    "parts",
    [
        [ONE, Text("What?")],
        [ONE, TWO, Text("<image> and?")],  # more images than marks
        [ONE, Text("<image> or <image>?")],  # more marks than images
        [ONE, Text("<image 1>, <image1>, <Image>, <video>")],  # other marks are words
        [FILM, Text("<image> and <video>?")],  # a video is no image
        [Text("What does <image> mean?")],
        [Text("A"), ONE, Text("What does <image> mean?")],  # the task has placed it
        [ONE],
    ],
    ids=str,
)
def test_marks_that_do_not_agree_with_the_images_are_words(parts):
    assert placed_at_marks(parts) == tuple(parts)


def test_mmt_bench_shows_its_picture_where_it_says(model):
    from lmms_eval.api.task import ConfigurableMessagesTask
    from lmms_eval.tasks.mmt.utils import mmt_doc_to_text

    words = mmt_doc_to_text({"question": "What is it?", "A": "a cat", "B": "a dog"})
    turn = ConfigurableMessagesTask._build_user_turn([Image.new("RGB", (56, 56))], words)
    (message,) = messages_of(turn, None, at_marks=True)
    text = model._engine.preprocessor(Request("a/b/0", (message,))).text
    assert text.partition("user\n")[2].startswith("Question: <img></img>\nWhat is it?\nA: a cat\nB: a dog")


def test_a_task_without_messages_of_its_own_shows_pictures_among_its_words(write_tasks, model, monkeypatch):
    folder = write_tasks(["A <image> B <image>: which?", "Which?"], 2, asked={"generation_kwargs": SHORT})
    asked = asked_of(model, monkeypatch)
    evaluate(model, folder, "asked")
    texts = [model._engine.preprocessor(request).text.partition("user\n")[2] for request in asked]
    assert texts[0].startswith("A <img></img> B <img></img>: which?<|im_end|>")
    assert texts[1].startswith("Image-1: <img></img>\nImage-2: <img></img>\nWhich?")
