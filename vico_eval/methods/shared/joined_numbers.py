"""Hyper-parameters that consist of several numbers, written as in 2/6/15."""

from __future__ import annotations

from collections.abc import Sequence

from vico_eval.errors import ConfigError


def joined_numbers(method: str, name: str, text: str | float | None) -> tuple[float, ...] | None:
    """The numbers in an argument; None if it is None.

    Raises:
        ConfigError: the argument is not numbers of at least 0 joined by `/`.
    """
    if text is None:
        return None
    try:
        # Command lines deliver a single number as a number, not as text.
        numbers = tuple(float(number) for number in str(text).split("/"))
    except ValueError:
        numbers = (-1.0,)
    if not all(number >= 0 for number in numbers):
        raise ConfigError(
            f"{method} got {name}={text!r}; expected numbers of at least 0 joined by /, as in 2/6/15 or 0.5/0.25."
        )
    return numbers


def rising_layers(method: str, name: str, text: str | int | None) -> tuple[int, ...] | None:
    """The layers in an argument, each after the one before; None if it is None.

    Raises:
        ConfigError: the argument is not increasing integers joined by `/`.
    """
    numbers = joined_numbers(method, name, text)
    if numbers is None:
        return None
    layers = tuple(int(number) for number in numbers if number.is_integer())
    if len(layers) < len(numbers) or not is_rising(layers):
        raise ConfigError(f"{method} got {name}={text!r}; expected increasing integers, as in 2/6/15.")
    return layers


def is_rising(numbers: Sequence[float]) -> bool:
    """Whether each number is above the one before."""
    return list(numbers) == sorted(set(numbers))
