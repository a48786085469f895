"""Hyper-parameters from command lines and notebooks: which part of a method takes each, and its type.

In a combination, an argument that several parts take is prefixed with the part's name, as in `divprune.keep_ratio=0.5`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from pathlib import PurePath
from typing import Any, TypeVar, get_type_hints

from vico_eval.errors import ConfigError

T = TypeVar("T")


def by_name(configs: Mapping[str, type]) -> dict[str, Field[Any]]:
    """The hyper-parameters of a method or combination, keyed by argument name.

    Args:
        configs: the `Config` of each part, by the part's name.
    """
    return {argument: field for argument, (_, field) in with_owners(configs).items()}


def with_owners(configs: Mapping[str, type]) -> dict[str, tuple[str, Field[Any]]]:
    """The hyper-parameters as in `by_name`, each with the part that takes it."""
    takers = _takers(configs)
    return {
        argument if len(takers[argument]) == 1 else f"{part}.{argument}": (part, field)
        for part, config in configs.items()
        for argument, field in _fields(config).items()
    }


def of_parts(method: str, configs: Mapping[str, type], arguments: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The arguments given to a method, divided among its parts.

    Raises:
        ConfigError: no part takes an argument, several parts do, or it is given twice.
    """
    known, takers = by_name(configs), _takers(configs)
    own: dict[str, dict[str, Any]] = {part: {} for part in configs}
    for argument, value in arguments.items():
        part, _, name = argument.rpartition(".")
        owner = takers[argument][0] if argument in known and not part else part
        if owner in configs and name in _fields(configs[owner]):
            if name in own[owner]:
                raise ConfigError(f"method {method!r} got {name} of {owner} twice; give it once.")
            own[owner][name] = value
        elif argument in takers:
            raise ConfigError(
                f"method {method!r} has {argument} in {' and in '.join(takers[argument])}; specify which one: "
                f"{' or '.join(f'{part}.{argument}=' for part in takers[argument])}."
            )
        else:
            raise ConfigError(
                f"method {method!r} has no argument {argument!r}; it takes {', '.join(sorted(known)) or 'none'}."
            )
    return own


def _fields(config: type) -> dict[str, Field[Any]]:
    return {field.name: field for field in fields(config)}


def _takers(configs: Mapping[str, type]) -> dict[str, list[str]]:
    """Names of the parts that take each argument."""
    takers: dict[str, list[str]] = defaultdict(list)
    for part, config in configs.items():
        for argument in _fields(config):
            takers[argument].append(part)
    return takers


def typed(config_class: type[T], values: Mapping[str, Any]) -> T:
    """The dataclass with these values, once their types are checked.

    Command lines deliver 1 for 1.0, and the string None for no value. Python callers may pass a path for a string.

    Raises:
        ConfigError: a value has a different type from its field.
    """
    hints = get_type_hints(config_class)
    checked = {}
    for name, value in values.items():
        accepted = getattr(hints[name], "__args__", (hints[name],))
        if float in accepted and type(value) is int:
            value = float(value)
        if str in accepted and isinstance(value, PurePath):
            value = str(value)
        if type(None) in accepted and value == "None":
            value = None
        if type(value) not in accepted:
            expected = " or ".join("None" if kind is type(None) else kind.__name__ for kind in accepted)
            # Harnesses parse values before they reach us: a folder named 20240101 arrives as a number.
            hint = f" For a folder of that name, write ./{value}." if str in accepted and _is_number(value) else ""
            raise ConfigError(f"argument {name} is {value!r}; expected {expected}.{hint}")
        checked[name] = value
    return config_class(**checked)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def default_text(field: Field[Any]) -> str:
    """The default of a hyper-parameter as shown in help."""
    return "required" if field.default is MISSING else repr(field.default)
