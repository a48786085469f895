"""Names of methods and what they stand for. Listing names imports no method, and no torch."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, fields
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path, PurePath
from typing import Any, TypeVar, get_type_hints

from vico_eval.errors import CheckpointError, ConfigError, unknown_name
from vico_eval.methods.interface import (
    CONNECTOR_INPUTS,
    ENCODER_ATTENTION,
    ENCODER_KEYS,
    PLACES,
    ConnectorPart,
    DecoderPart,
    ModelFacts,
    Part,
    ResolutionPart,
    SelectionPart,
)

BUILT_IN = {
    "all_compress": "vico_eval.methods.all_compress:AllCompress",
    "cdpruner": "vico_eval.methods.cdpruner:CDPruner",
    "divprune": "vico_eval.methods.divprune:DivPrune",
    "dart": "vico_eval.methods.dart:Dart",
    "downsample": "vico_eval.methods.downsample:Downsample",
    "fastv": "vico_eval.methods.fastv:FastV",
    "holov": "vico_eval.methods.holov:HoloV",
    "fitprune": "vico_eval.methods.fitprune:FitPrune",
    "image_vir": "vico_eval.methods.image_vir:ImageViR",
    "lvtc": "vico_eval.methods.lvtc:LVTC",
    "pool": "vico_eval.methods.pool:Pool",
    "pvtc": "vico_eval.methods.pvtc:Pvtc",
    "pyramiddrop": "vico_eval.methods.pyramiddrop:PyramidDrop",
    "random": "vico_eval.methods.random:Random",
    "random_tokens": "vico_eval.methods.random_tokens:RandomTokens",
    "rvtc_area": "vico_eval.methods.rvtc_area:RvtcArea",
    "rvtc_edge": "vico_eval.methods.rvtc_edge:RvtcEdge",
    "rvtc_ratio": "vico_eval.methods.rvtc_ratio:RvtcRatio",
    "single_tile": "vico_eval.methods.single_tile:SingleTile",
    "sparsevlm": "vico_eval.methods.sparsevlm:SparseVLM",
    "top_attention": "vico_eval.methods.top_attention:TopAttention",
    "vanilla": "vico_eval.methods.vanilla:Vanilla",
    "vanilla_vir": "vico_eval.methods.vanilla_vir:VanillaViR",
    "vico": "vico_eval.methods.vico:ViCO",
    "visionzip": "vico_eval.methods.visionzip:VisionZip",
    "vispruner": "vico_eval.methods.vispruner:VisPruner",
}
"""Where the class of each method stands, "module:Class"."""

ENTRY_POINTS = "vico_eval.methods"
"""Group in which other packages name theirs, `name = "module:Class"`."""

_registered: dict[str, type[Part]] = {}
"""Those of scripts and notebooks."""

P = TypeVar("P", bound="type[Part]")
T = TypeVar("T")


@dataclass(frozen=True)
class Method:
    """A built method: at most one part in each place, each with its hyper-parameters."""

    name: str
    resolution: ResolutionPart | None = None
    connector: ConnectorPart | None = None
    selection: SelectionPart | None = None
    decoder: DecoderPart | None = None

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts there are, in the order in which they act."""
        places = (self.resolution, self.connector, self.selection, self.decoder)
        return tuple(part for part in places if part is not None)

    @property
    def needs_donor(self) -> bool:
        """Whether ViCO's parts come from a second checkpoint."""
        return any(part.needs_donor for part in self.parts)

    @property
    def needs_donors_router(self) -> bool:
        """Whether that checkpoint also routes."""
        return any(part.needs_donor and part.needs_router for part in self.parts)

    def resolved(self) -> Method:
        """The method once arguments that name earlier runs are read; as `Part.resolved`."""
        return Method(self.name, **{part.place: part.resolved() for part in self.parts})  # type: ignore[arg-type]

    def check(self, facts: ModelFacts, donor: ModelFacts | None = None) -> None:
        """See that a checkpoint has what the parts need, and that they run all that it is trained with.

        Args:
            facts: of the checkpoint.
            donor: of the second one, where a part needs that.

        Raises:
            CheckpointError: it lacks something, or would be another model.
            ConfigError: a part is asked for what the model can't do.
        """
        needs_tiles = self.resolution is not None or (self.connector is not None and bool(self.connector.routes))
        if needs_tiles and facts.tile is None:
            raise CheckpointError(
                f"method {self.name!r} acts on tiles, and checkpoint {facts.checkpoint!r} ({facts.family}) does not "
                "cut images into tiles. Choose a method that selects tokens or acts in the decoder."
            )
        for part in self.parts:
            part.check(donor if donor is not None and part.needs_donor else facts)
        if self.selection is not None:
            _check_needs(self.name, self.selection, facts)
            _check_mixing(self.name, self.selection, self.connector)
        left_out = facts.trained_in.difference(*(part.runs for part in self.parts))
        if left_out:
            names = ", ".join(sorted(left_out))
            raise CheckpointError(
                f"checkpoint {facts.checkpoint!r} is trained with {names}, and method {self.name!r} leaves it out: "
                f"that would be another model. Run method={names}, alone or in a combination."
            )

    def arguments(self) -> dict[str, Any]:
        """Every hyper-parameter with its value, defaults included."""
        return {field.name: getattr(part.config, field.name) for part in self.parts for field in fields(part.config)}


def _check_needs(method: str, part: SelectionPart, facts: ModelFacts) -> None:
    if lacking := sorted(part.needs - facts.offers):
        raise CheckpointError(
            f"method {method!r} needs {', '.join(lacking)}, which {facts.family} ({facts.checkpoint!r}) does not give; "
            f"it gives {', '.join(sorted(facts.offers)) or 'tokens and their places'}. Choose another method."
        )
    if not part.needs & {ENCODER_ATTENTION, ENCODER_KEYS}:
        return
    rows, layer = part.score_source
    if rows not in facts.score_sources:
        raise ConfigError(
            f"method {method!r} got score_source={rows!r}; the vision encoder of {facts.checkpoint!r} gives "
            f"{' or '.join(sorted(facts.score_sources))}."
        )
    if not -facts.num_vision_layers <= layer < facts.num_vision_layers:
        raise ConfigError(
            f"method {method!r} got score_layer={layer}, and the vision encoder of {facts.checkpoint!r} has "
            f"{facts.num_vision_layers} layers; expected {-facts.num_vision_layers} to {facts.num_vision_layers - 1}."
        )


def _check_mixing(method: str, part: SelectionPart, connector: ConnectorPart | None) -> None:
    if CONNECTOR_INPUTS in part.needs and connector is not None and any(route.then for route in connector.routes):
        raise ConfigError(
            f"method {method!r} can't be run so: its selection mixes what the connector takes in, and its part in the "
            "connector makes fewer tokens behind that. Have the selection work on visual tokens (visionzip: "
            "merge_at=decoder), or leave one of them out."
        )


def register(name: str) -> Callable[[P], P]:
    """Class decorator: make a part known as method `name` in this process, as in a script or a notebook.

    Raises:
        ConfigError: the name is taken by another class.
    """

    def add(part: P) -> P:
        taken = BUILT_IN.get(name) or (_plugins()[name].value if name in _plugins() else None)
        known = _registered.get(name)
        if known is not None and _place_of(known) != _place_of(part):
            taken = _place_of(known)
        if taken is not None:
            raise ConfigError(f"two methods are named {name!r}: {taken} and {_place_of(part)}. Rename one of them.")
        _registered[name] = part
        return part

    return add


def _place_of(part: type[Part]) -> str:
    return f"{part.__module__}:{part.__qualname__}"


def method_names() -> tuple[str, ...]:
    """Every method that can be asked for by name, sorted."""
    return tuple(sorted({*BUILT_IN, *_plugins(), *_registered}))


def describe(name: str) -> str:
    """The method's docstring: what it does and where it comes from. A built-in one is read without importing it."""
    _require_known(name)
    if name in BUILT_IN:
        file = BUILT_IN[name].partition(":")[0].rpartition(".")[2]
        source = Path(__file__).with_name(f"{file}.py").read_text(encoding="utf-8")
        return ast.get_docstring(ast.parse(source)) or ""
    part = load(name)
    return importlib.import_module(part.__module__).__doc__ or part.__doc__ or ""


def load(name: str) -> type[Part]:
    """The class of method `name`.

    Raises:
        ConfigError: no such method, which lists the known ones; or another package's entry point that is no method.
    """
    _require_known(name)
    if name in _registered:
        return _registered[name]
    if name in BUILT_IN:
        return _plugin(EntryPoint(name, BUILT_IN[name], ENTRY_POINTS))
    return _plugin(_plugins()[name])


def _plugin(point: EntryPoint) -> type[Part]:
    """The class that an entry point names."""
    try:
        found = point.load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"method {point.name!r} can't be loaded from {point.value!r}: {error}. Expected an entry point of the form "
            '"module:Class" in an installed package.'
        ) from error
    if not (isinstance(found, type) and issubclass(found, Part) and getattr(found, "place", None) in PLACES):
        raise ConfigError(
            f"method {point.name!r} is {point.value!r}, which is no part of a method; expected a subclass of "
            "ResolutionPart, ConnectorPart, SelectionPart or DecoderPart of vico_eval.methods.interface."
        )
    return found


def parameters(method: str) -> dict[str, Field[Any]]:
    """The hyper-parameters of a method or combination, by name."""
    return {field.name: field for name in _split(method) for field in fields(load(name).Config)}


def build(method: str, arguments: Mapping[str, Any] | None = None) -> Method:
    """A method from its name and hyper-parameters.

    Args:
        method: a name, or several joined by `+`, each in another place ("single_tile+vico+fastv").
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
    _refuse_fewer_tokens(built)
    return built


def _refuse_fewer_tokens(method: Method) -> None:
    """Raises ConfigError if the part in the decoder needs whole tiles, and another part takes tokens out of them."""
    if method.decoder is None or not method.decoder.needs_whole_tiles:
        return
    place = "selection" if method.selection is not None else None
    if method.connector is not None and len(method.connector.routes) > 0:
        place = "connector"
    if place is not None:
        raise ConfigError(
            f"method {method.name!r} can't be built: its part in the decoder needs every tile with all its visual "
            f"tokens, and its part in the {place} takes some away. Leave one of them out."
        )


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
def _plugins() -> dict[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=ENTRY_POINTS):
        if point.name in found or point.name in BUILT_IN:
            taken = found[point.name].value if point.name in found else BUILT_IN[point.name]
            raise ConfigError(
                f"two methods are named {point.name!r}: {taken} and {point.value}. Rename the entry point of one."
            )
        found[point.name] = point
    return found


def _require_known(name: str) -> None:
    known = method_names()
    if name not in known:
        raise unknown_name("method", name, known)
