"""Hyper-parameters as command lines and notebooks give them: whose they are, and of what type.

An argument that several parts of a combination take says whose it is, as in `divprune.keep_ratio=0.5`.
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
    """The hyper-parameters of a method or combination, by the name to give them by.

    Args:
        configs: the `Config` of each part, by the part's name.
    """
    return {argument: field for argument, (_, field) in with_owners(configs).items()}


def with_owners(configs: Mapping[str, type]) -> dict[str, tuple[str, Field[Any]]]:
    """As `by_name`, each with the part that it is of."""
    takers = _takers(configs)
    return {
        argument if len(takers[argument]) == 1 else f"{part}.{argument}": (part, field)
        for part, config in configs.items()
        for argument, field in _fields(config).items()
    }


def of_parts(method: str, configs: Mapping[str, type], arguments: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Each part's own of the arguments given to a method.

    Raises:
        ConfigError: one that no part takes, or several do.
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
                f"method {method!r} has {argument} in {' and in '.join(takers[argument])}; say whose is meant: "
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
    """The dataclass with these values, after a look at their types.

    Command lines deliver 1 for 1.0, and the word None for nothing; Python may give a path for its text.

    Raises:
        ConfigError: a value of another type than its field.
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
            expected = " or ".join("nothing" if kind is type(None) else kind.__name__ for kind in accepted)
            # Harnesses read values before we do: a folder named 20240101 arrives as a number.
            hint = f" A folder of that name is written ./{value}." if str in accepted and _is_number(value) else ""
            raise ConfigError(f"argument {name} is {value!r}; expected {expected}.{hint}")
        checked[name] = value
    return config_class(**checked)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def default_text(field: Field[Any]) -> str:
    """A hyper-parameter's default as help shows it."""
    return "required" if field.default is MISSING else repr(field.default)
