"""Names of methods and what they stand for. Listing names imports no method, and no torch."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, fields
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

from vico_eval.errors import CheckpointError, ConfigError, unknown_name

if TYPE_CHECKING:
    from vico_eval.families.internvl.config import VicoInternVLConfig
    from vico_eval.methods.parts import ConnectorPart, DecoderPart, Part, TilingPart

ENTRY_POINTS = "vico_eval.methods"
_NOT_METHODS = {"earlier_decisions", "earlier_run", "parts", "random_tiles", "registry"}
_registered: dict[str, type[Part]] = {}

P = TypeVar("P", bound="type[Part]")
T = TypeVar("T")


@dataclass(frozen=True)
class Method:
    """A built method: at most one part in each place, each with its hyper-parameters."""

    name: str
    tiling: TilingPart | None = None
    connector: ConnectorPart | None = None
    decoder: DecoderPart | None = None

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts there are, in the order in which they act."""
        return tuple(part for part in (self.tiling, self.connector, self.decoder) if part is not None)

    @property
    def needs_donor(self) -> bool:
        """Whether ViCO's parts come from a second checkpoint."""
        return any(part.needs_donor for part in self.parts)

    @property
    def needs_donors_router(self) -> bool:
        """Whether that checkpoint also routes."""
        return any(part.needs_donor and part.needs_router for part in self.parts)

    def check_runs_all_of(self, model_config: VicoInternVLConfig, checkpoint: str) -> None:
        """Raises CheckpointError if the checkpoint is trained with a part that no part of this method runs."""
        left_out = model_config.trained_in.difference(*(part.runs for part in self.parts))
        if left_out:
            names = ", ".join(sorted(left_out))
            raise CheckpointError(
                f"checkpoint {checkpoint!r} is trained with {names}, and method {self.name!r} leaves it out: that "
                f"would be another model. Run method={names}, alone or in a combination."
            )

    def arguments(self) -> dict[str, Any]:
        """Every hyper-parameter with its value, defaults included."""
        return {field.name: getattr(part.config, field.name) for part in self.parts for field in fields(part.config)}


def register(name: str) -> Callable[[P], P]:
    """Class decorator: make a part known as method `name`.

    Raises:
        ConfigError: the name is taken by another class.
    """

    def add(part: P) -> P:
        known = _registered.setdefault(name, part)
        if (known.__module__, known.__qualname__) != (part.__module__, part.__qualname__):
            raise ConfigError(
                f"two methods are named {name!r}: {known.__module__}.{known.__qualname__} and "
                f"{part.__module__}.{part.__qualname__}. Rename one of them."
            )
        return part

    return add


def method_names() -> tuple[str, ...]:
    """Every method that can be asked for by name, sorted."""
    return tuple(sorted({*_builtin_names(), *_plugins(), *_registered}))


def describe(name: str) -> str:
    """The method's docstring: what it does and where it comes from. A built-in one is read without importing it."""
    _require_known(name)
    if name in _builtin_names():
        source = Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8")
        return ast.get_docstring(ast.parse(source)) or ""
    part = load(name)
    return importlib.import_module(part.__module__).__doc__ or part.__doc__ or ""


def load(name: str) -> type[Part]:
    """The class registered as `name`.

    Raises:
        ConfigError: no such method; lists the known ones.
    """
    _require_known(name)
    if name not in _registered:
        if name in _builtin_names():
            importlib.import_module(f"vico_eval.methods.{name}")
        else:
            _plugins()[name].load()
    if name not in _registered:
        raise ConfigError(
            f"the module of method {name!r} registers no class under that name; expected @register({name!r})."
        )
    return _registered[name]


def parameters(method: str) -> dict[str, Field[Any]]:
    """The hyper-parameters of a method or combination, by name."""
    return {field.name: field for name in _split(method) for field in fields(load(name).Config)}


def build(method: str, arguments: Mapping[str, Any] | None = None) -> Method:
    """A method from its name and hyper-parameters.

    Args:
        method: a name, or several joined by `+`, each in another place ("single_tile+vico").
        arguments: hyper-parameters by name.

    Raises:
        ConfigError: unknown method or argument, two parts in one place, parts that exclude each other, or a value that
            a part refuses.
    """
    arguments = dict(arguments or {})
    known = parameters(method)
    if unknown := sorted(set(arguments) - set(known)):
        raise ConfigError(
            f"method {method!r} has no argument {', '.join(map(repr, unknown))}; it takes "
            f"{', '.join(sorted(known)) or 'none'}."
        )
    if "ratio_from" in arguments:
        _refuse_two_targets(method)
    by_place: dict[str, Part] = {}
    for name in _split(method):
        part_class = load(name)
        own = {field.name for field in fields(part_class.Config)}
        part = part_class(typed(part_class.Config, {key: arguments[key] for key in own & set(arguments)}))
        if part.place in by_place:
            raise ConfigError(
                f"method {method!r} has two parts in the {part.place}; expected at most one in each place."
            )
        by_place[part.place] = part
    built = Method(name=method, **by_place)  # type: ignore[arg-type]
    decoder, connector = built.decoder, built.connector
    if decoder is not None and decoder.needs_whole_tiles and connector is not None and connector.compresses:
        raise ConfigError(
            f"method {method!r} can't be built: its part in the decoder needs every tile with all its visual tokens, "
            "and its part in the connector compresses tiles. Leave one of them out."
        )
    return built


def _refuse_two_targets(method: str) -> None:
    takers = [name for name in _split(method) if "ratio_from" in {field.name for field in fields(load(name).Config)}]
    if len(takers) > 1:
        raise ConfigError(
            f"{' and '.join(map(repr, takers))} would each save as much as ratio_from measured, together more. "
            f"Give their own arguments instead: {', '.join(sorted(set(parameters(method)) - {'ratio_from'}))}."
        )


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
            hint = f" A folder of that name is written ./{value}." if str in accepted and is_number(value) else ""
            raise ConfigError(f"argument {name} is {value!r}; expected {expected}.{hint}")
        checked[name] = value
    return config_class(**checked)


def is_number(value: object) -> bool:
    """Whether a value that should be text has been read as a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def default_text(field: Field[Any]) -> str:
    """A hyper-parameter's default as help shows it."""
    return "required" if field.default is MISSING else repr(field.default)


def _split(method: str) -> list[str]:
    return [name.strip() for name in method.split("+")]


@cache
def _builtin_names() -> frozenset[str]:
    folder = str(Path(__file__).parent)
    return frozenset(module.name for module in pkgutil.iter_modules([folder])) - _NOT_METHODS


@cache
def _plugins() -> dict[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=ENTRY_POINTS):
        if point.name in found or point.name in _builtin_names():
            raise ConfigError(f"method name {point.name!r} of {point.value} is taken already. Rename the entry point.")
        found[point.name] = point
    return found


def _require_known(name: str) -> None:
    known = method_names()
    if name not in known:
        raise unknown_name("method", name, known)
