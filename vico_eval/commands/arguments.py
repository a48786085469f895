"""Options that hold several names, or named values, such as `--model-args max_tiles=12,dtype=bfloat16`."""

from __future__ import annotations

from vico_eval.errors import ConfigError

Arguments = dict[str, str | int | float | bool]


def parse_names(text: str | None, option: str) -> list[str]:
    """`a,b,...` as names; none where the option was not given.

    Raises:
        ConfigError: it was given without a name, or with one of them twice.
    """
    if text is None:
        return []
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"{option} got {text!r}; expected one or several names separated by commas, each once.")
    return names


def parse_arguments(text: str, option: str) -> Arguments:
    """`k=v,...` as values, as lmms-eval reads its own: true and false, integers, numbers, and words.

    Raises:
        ConfigError: a part without `=`, or a name that is given twice.
    """
    arguments: Arguments = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = part.partition("=")
        if not equals or not name or name in arguments:
            raise ConfigError(f"{option} got {part!r}; expected name=value, each name once, separated by commas.")
        arguments[name] = _value(value)
    return arguments


def _value(text: str) -> str | int | float | bool:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
