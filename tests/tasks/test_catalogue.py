"""The catalogue against lmms-eval itself: every task exists, and an override changes what it means to change."""

from pathlib import Path

import pytest
import yaml
from lmms_eval.tasks import TaskManager
from lmms_eval.utils import load_yaml_config

from vico_eval.paths import tasks_dir
from vico_eval.suites import load_benchmarks, suite_names, task_names

OVERRIDES = sorted((tasks_dir() / "overrides").glob("*.yaml"))


@pytest.fixture(scope="module")
def index():
    """Tasks by name, lmms-eval's own and ours; takes ten seconds."""
    return TaskManager(include_path=str(tasks_dir())).task_index


def test_every_task_of_the_catalogue_exists(index):
    names = {name for benchmark in load_benchmarks().values() for name in task_names(benchmark)}
    assert {name for name in names if index.get(name, {}).get("type") != "task"} == set()


def test_what_is_no_task_file_is_none_to_lmms_eval(index):
    # Catalogue, suites and overrides lie in the folder that it searches.
    ours = {name for name, entry in index.items() if str(entry["yaml_path"]).startswith(str(tasks_dir()))}
    assert {name for name in ours if not name.startswith("tiny")} == {"mmbench_v11_en_dev", "mmiu"}
    assert ours.isdisjoint(set(suite_names()) - {"tiny"})


def test_the_shipped_overrides_are_used():
    used = {task for benchmark in load_benchmarks().values() for task in benchmark.tasks if task.endswith(".yaml")}
    assert used == {f"overrides/{path.name}" for path in OVERRIDES}


@pytest.mark.parametrize("path", OVERRIDES, ids=lambda path: path.stem)
def test_an_override_keeps_the_rest_of_what_it_replaces(index, path: Path):
    override = yaml.safe_load(path.read_text(encoding="utf-8"))
    packaged = load_yaml_config(index[override["task"]]["yaml_path"])
    if "lmms_eval_specific_kwargs" in override:
        default = packaged["lmms_eval_specific_kwargs"]["default"]
        assert override["lmms_eval_specific_kwargs"] == {"default": default | {"frame_num": 64}}
    if "generation_kwargs" in override:
        assert packaged["generation_kwargs"] == {"max_new_tokens": 128}
        assert override["generation_kwargs"] == {"max_new_tokens": 65536, "do_sample": True, "temperature": 0.6}
