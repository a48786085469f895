"""Digests of the scorers of lmms-eval's tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import lmms_eval
from lmms_eval.api.instance import Instance
from lmms_eval.api.registry import METRIC_REGISTRY
from lmms_eval.api.task import ConfigurableTask

from vico_eval.harnesses.lmms_eval.requests import first_of_each_task, task_of
from vico_eval.harnesses.scoring_source import Toolkit, scorer_digest

_LMMS_EVAL = Toolkit.of(lmms_eval, "tasks", "api")


def scorers_of(instances: Iterable[Instance]) -> dict[str, str]:
    """Return the digest of each task's scoring code, if the task defines it."""
    tasks = {instance.args[4]: task_of(instance) for instance in first_of_each_task(instances)}
    return {
        name: scorer_digest(_functions(task), _LMMS_EVAL, _plain(_settings(task)))
        for name, task in tasks.items()
        if task is not None
    }


def _functions(task: ConfigurableTask) -> list[Callable[..., Any]]:
    """Return the functions that lmms-eval calls with an answer. Its code for all tasks is identified by its version."""
    config = task.config
    own = [config.process_results, config.doc_to_target, *task.aggregation().values()]
    if config.process_results is None:
        own += [METRIC_REGISTRY.get(str(metric.get("metric"))) for metric in config.metric_list or ()]
    return [function for function in own if callable(function)]


def _settings(task: ConfigurableTask) -> dict[str, Any]:
    config = task.config
    return {name: getattr(config, name) for name in ("metric_list", "filter_list", "process_results", "doc_to_target")}


def _plain(value: Any) -> Any:
    """Return the settings with functions replaced by their names, sorted."""
    if isinstance(value, Mapping):
        return sorted((str(name), _plain(own)) for name, own in value.items())
    if isinstance(value, list | tuple):
        return [_plain(own) for own in value]
    return getattr(value, "__name__", type(value).__name__) if callable(value) else value
