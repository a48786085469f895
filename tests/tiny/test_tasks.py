"""The lmms-eval tasks: found from any folder, scored by lmms-eval itself."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from lmms_eval.tasks import TaskManager

from vico_eval.paths import tasks_dir
from vico_eval.tiny.scenes import TASKS

SHIPPED = tasks_dir() / "tiny"


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """Both groups, loaded from a copy of the task files while the working directory is elsewhere."""
    folder = tmp_path_factory.mktemp("wheel") / "tasks"
    shutil.copytree(SHIPPED, folder / "tiny", ignore=shutil.ignore_patterns("__pycache__"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LMMS_EVAL_DATASETS_CACHE", str(tmp_path_factory.mktemp("datasets")))
        patch.chdir(tmp_path_factory.mktemp("elsewhere"))
        manager = TaskManager(include_path=str(folder), include_defaults=False)
        groups = manager.load_task_or_group(["tiny", "tiny_val"], task_type="chat")
        return {group.group: tasks for group, tasks in groups.items()}, folder


def test_both_groups_have_every_task(loaded):
    groups, _ = loaded
    assert set(groups["tiny"]) == {f"tiny_{task}" for task in TASKS}
    assert set(groups["tiny_val"]) == {f"tiny_val_{task}" for task in TASKS}


@pytest.mark.parametrize("task", TASKS)
def test_right_answers_score_one_and_others_zero(loaded, task):
    groups, _ = loaded
    for lmms_task in (groups["tiny"][f"tiny_{task}"], groups["tiny_val"][f"tiny_val_{task}"]):
        for document in list(lmms_task.eval_docs_no_media)[:40]:
            target = lmms_task.doc_to_target(document)
            assert lmms_task.process_results(document, [f" {target}\n"]) == {"exact_match": 1.0}
            assert lmms_task.process_results(document, [f"{target}0"]) == {"exact_match": 0.0}
            assert lmms_task.process_results(document, [""]) == {"exact_match": 0.0}


@pytest.mark.parametrize(("task", "kinds"), [("read", "i"), ("compare", "ii"), ("video", "v")])
def test_messages_have_pictures_in_order_and_then_the_question(loaded, task, kinds):
    groups, folder = loaded
    lmms_task = groups["tiny"][f"tiny_{task}"]
    document = lmms_task.test_docs()[0]
    (message,) = lmms_task.doc_to_messages(document)
    *media, text = message["content"]
    assert [part["type"][0] for part in media] == list(kinds)
    assert text == {"type": "text", "text": document["question"]}
    if task == "compare":
        assert [part["url"].tobytes() for part in media] == [
            document[name].convert("RGB").tobytes() for name in ("image_1", "image_2")
        ]
    if task == "video":
        assert Path(media[0]["url"]) == folder / document["video"].replace("videos", "tiny/videos")


def test_media_stay_out_of_the_samples_file(loaded):
    groups, _ = loaded
    assert not [
        name for task in groups["tiny"].values() for name in task.eval_docs_no_media.features if "image" in name
    ]


def test_generation_is_greedy_and_says_so(loaded):
    groups, _ = loaded
    for task in groups["tiny"].values():
        settings = {**task.config.generation_kwargs}
        settings.pop("until")
        assert settings == {"max_new_tokens": 8, "temperature": 0, "top_p": 1.0, "num_beams": 1, "do_sample": False}


def test_there_is_a_file_for_every_task():
    for prefix, folder in (("tiny_", SHIPPED), ("tiny_val_", SHIPPED / "validation")):
        for task in TASKS:
            assert yaml.safe_load((folder / f"{prefix}{task}.yaml").read_text())["task"] == prefix + task
