"""Task files as lmms-eval reads them."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
from lmms_eval.utils import load_yaml_config

from vico_eval.paths import tasks_dir


@pytest.fixture(scope="session")
def task_file() -> Callable[[str], SimpleNamespace]:
    """A task file's settings with the functions that it names, and the aggregations by metric."""

    def load(place: str) -> SimpleNamespace:
        config = load_yaml_config(str(tasks_dir() / place))
        aggregations = {entry["metric"]: entry["aggregation"] for entry in config["metric_list"]}
        return SimpleNamespace(**config, aggregations=aggregations)

    return load


@pytest.fixture(autouse=True, scope="session")
def _own_dataset_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LMMS_EVAL_DATASETS_CACHE", str(tmp_path_factory.mktemp("datasets")))
        yield
