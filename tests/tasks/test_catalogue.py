"""The catalogue against lmms-eval itself: every task exists, and an override changes what it means to change."""

from pathlib import Path

import datasets
import pytest
import yaml
from lmms_eval.tasks import TaskManager
from lmms_eval.utils import load_yaml_config
from PIL import Image

from vico_eval.engine.requests import THINKING_GENERATION
from vico_eval.paths import tasks_dir
from vico_eval.suites import load_benchmarks, suite_names, task_names

OVERRIDES = sorted((tasks_dir() / "overrides").glob("*.yaml"))


@pytest.fixture(scope="module")
def manager():
    """lmms-eval's own tasks and ours; takes ten seconds."""
    return TaskManager(include_path=str(tasks_dir()))


@pytest.fixture
def index(manager):
    """Where each task is, by name."""
    return manager.task_index


def test_every_task_of_the_catalogue_exists(index):
    catalogue = load_benchmarks().values()
    asked = {name for benchmark in catalogue for name in benchmark.tasks}
    scored = {name for benchmark in catalogue for name in task_names(benchmark)}
    kinds = {name: index.get(name, {}).get("type") for name in asked | scored}
    assert {name: kind for name, kind in kinds.items() if kind != "task"} == {path.stem: "group" for path in OVERRIDES}
    assert {path.stem for path in OVERRIDES} == asked - scored


def test_what_is_no_task_file_is_none_to_lmms_eval(index):
    # Catalogue and suites lie in the folder that it searches.
    ours = {name for name, entry in index.items() if str(entry["yaml_path"]).startswith(str(tasks_dir()))}
    tasks = {"mmbench_v11_en_dev", "mmbench_cn_dev_static", "mmiu", "mirb_micro", "nlvr2"}
    tasks |= {"hallusion_bench_image_static"} | {path.stem for path in OVERRIDES}
    assert {name for name in ours if not name.startswith("tiny")} == tasks
    assert ours.isdisjoint(set(suite_names()) - {"tiny"})


@pytest.mark.parametrize("path", OVERRIDES, ids=lambda path: path.stem)
def test_an_override_keeps_the_rest_of_what_it_replaces(index, path: Path):
    (override,) = yaml.safe_load(path.read_text(encoding="utf-8"))["task"]
    packaged = load_yaml_config(index[override["task"]]["yaml_path"])
    if "lmms_eval_specific_kwargs" in override:
        default = packaged["lmms_eval_specific_kwargs"]["default"]
        assert override["lmms_eval_specific_kwargs"] == {"default": default | {"frame_num": 64}}
    if "generation_kwargs" in override:
        assert packaged["generation_kwargs"] == {"max_new_tokens": 128}
        assert override["generation_kwargs"] == THINKING_GENERATION


def test_lmms_eval_asks_the_packaged_task_in_the_changed_setting(manager, tmp_path):
    # A small stand-in for the data; everything else is what a run of the suite loads.
    row = {"id": "validation_Art_1", "question": "Which <image 1>?", "options": "['a', 'b']", "answer": "A"}
    row |= {"question_type": "multiple-choice", "image_1": Image.new("RGB", (8, 8))}
    parquet = tmp_path / "mmmu.parquet"
    datasets.Dataset.from_list([row]).to_parquet(parquet)
    local = {"dataset_path": "parquet", "dataset_kwargs": {"data_files": {"validation": str(parquet)}}}
    stand_in = {"group": "stand_in", "task": [{"task": "mmmu_val_thinking"} | local]}
    ((_, groups),) = manager.load_task_or_group([stand_in], task_type="chat").items()
    ((_, tasks),) = groups.items()
    (task,) = tasks.values()
    generation = task.config.generation_kwargs
    assert (task.config.task, generation["max_new_tokens"], generation["temperature"]) == ("mmmu_val", 65536, 0.6)
    (message,) = task.doc_to_messages(task.test_docs()[0])
    assert [part["type"] for part in message["content"]] == ["text", "image", "text"]
