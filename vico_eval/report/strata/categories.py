"""Each document's category within its benchmark, as stored by the scorer."""

from collections.abc import Mapping, Sequence
from typing import Any

from vico_eval.runs.results import TaskResult
from vico_eval.score_rules import Category

MOST_CATEGORIES = 64
"""Maximum number of categories. With more, the scorer stores something else under that name, such as an index."""


def categories_of(rule: Category | None, tasks: Sequence[TaskResult]) -> list[str] | None:
    """The documents' categories, task by task. Without a rule the tasks are the categories, if there are several.

    Returns:
        [documents], empty for unknown categories. None if all are unknown or equal, or there are more than
        `MOST_CATEGORIES`.
    """
    if rule is None:
        found = [task.name for task in tasks for _ in task.documents]
    else:
        found = [_category(rule, document.fields) for task in tasks for document in task.documents]
    return found if 1 < len(set(found) - {""}) <= MOST_CATEGORIES else None


def _category(rule: Category, fields: Mapping[str, Any]) -> str:
    if rule.beside is not None:
        *path, known = rule.beside
        place: object = fields
        for name in path:
            place = place.get(name) if isinstance(place, Mapping) else None
        others = [name for name in place if name != known] if isinstance(place, Mapping) else []
        return str(others[0]) if len(others) == 1 else ""
    # In lmms-eval, each metric's outcome is an object with the key; VLMEvalKit's tables have it as a column.
    places = [fields, *(value for value in fields.values() if isinstance(value, Mapping))]
    value = next((place[rule.key] for place in places if rule.key in place), "")
    return "" if value is None or isinstance(value, Mapping | list) else str(value).strip()
