"""Registry of methods by name. Listing names imports neither methods nor torch."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, fields, replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, TypeVar

from vico_eval.errors import CheckpointError, ConfigError, unknown_name
from vico_eval.methods.arguments import by_name, of_parts, typed, with_owners
from vico_eval.methods.interface import (
    CONNECTOR_INPUTS,
    ENCODER_ATTENTION,
    ENCODER_KEYS,
    PLACES,
    ConnectorPart,
    DecoderPart,
    ModelFacts,
    Part,
    PixelPart,
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
    "max_pixels": "vico_eval.methods.max_pixels:MaxPixels",
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
"""Class of each method, as "module:Class"."""

RATIO_FROM = "ratio_from"

ENTRY_POINTS = "vico_eval.methods"
"""Entry-point group in which other packages register methods, `name = "module:Class"`."""

_registered: dict[str, type[Part]] = {}
"""Methods registered by scripts and notebooks."""

P = TypeVar("P", bound="type[Part]")


@dataclass(frozen=True)
class Method:
    """A built method: at most one part in each place, each with its hyper-parameters."""

    name: str
    resolution: ResolutionPart | PixelPart | None = None
    connector: ConnectorPart | None = None
    selection: SelectionPart | None = None
    decoder: DecoderPart | None = None

    @property
    def parts(self) -> tuple[Part, ...]:
        """The method's parts, in the order in which they act."""
        places = (self.resolution, self.connector, self.selection, self.decoder)
        return tuple(part for part in places if part is not None)

    @property
    def needs_donor(self) -> bool:
        """Whether a second checkpoint supplies ViCO's parts."""
        return any(part.needs_donor for part in self.parts)

    @property
    def needs_donors_router(self) -> bool:
        """Whether that checkpoint also supplies the router."""
        return any(part.needs_donor and part.needs_router for part in self.parts)

    def resolved(self) -> Method:
        """The method once arguments that name earlier runs are resolved; see `Part.resolved`."""
        return Method(self.name, **{part.place: part.resolved() for part in self.parts})  # type: ignore[arg-type]

    def suited(self, facts: ModelFacts) -> Method:
        """The method with settings that depend on the model filled in; see `Part.suited`."""
        return replace(self, **{part.place: part.suited(facts) for part in self.parts})  # type: ignore[arg-type]

    def check(self, facts: ModelFacts, donor: ModelFacts | None = None) -> None:
        """Check that a checkpoint has what the parts need, and that they run everything it was trained with.

        Args:
            facts: facts of the checkpoint.
            donor: facts of the second checkpoint, if a part needs one.

        Raises:
            CheckpointError: it lacks something, or the method would make it a different model.
            ConfigError: a part is configured for something the model can't do.
        """
        cuts = isinstance(self.resolution, ResolutionPart)
        routes = self.connector is not None and bool(self.connector.routes)
        if (cuts or routes) and facts.tile is None:
            lacks = "" if cuts else ", nor has it connectors to choose from"
            instead = "max_pixels, or a" if cuts and facts.pixels is not None else "a"
            raise CheckpointError(
                f"method {self.name!r} acts on tiles, and checkpoint {facts.checkpoint!r} ({facts.family}) does not "
                f"cut images into tiles{lacks}. Choose {instead} method that selects tokens or acts in the decoder."
            )
        if isinstance(self.resolution, PixelPart) and facts.pixels is None:
            raise CheckpointError(
                f"method {self.name!r} sets how many pixels an image may have, and checkpoint {facts.checkpoint!r} "
                f"({facts.family}) has images of a fixed size or in tiles. Choose downsample or single_tile."
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
                f"checkpoint {facts.checkpoint!r} was trained with {names}, and method {self.name!r} leaves it out, "
                f"which would be a different model. Run method={names}, alone or in a combination."
            )

    def arguments(self) -> dict[str, Any]:
        """Every hyper-parameter with its value, defaults included, keyed by argument name."""
        parts = {load(name).place: name for name in _split(self.name)}
        named = {parts[part.place]: part for part in self.parts}
        return {
            argument: getattr(named[owner].config, field.name)
            for argument, (owner, field) in with_owners({name: part.Config for name, part in named.items()}).items()
        }


def _check_needs(method: str, part: SelectionPart, facts: ModelFacts) -> None:
    if lacking := sorted(part.needs - facts.offers):
        # One method has a setting that needs less.
        other = " or merge_at=decoder" if lacking == [CONNECTOR_INPUTS] else ""
        raise CheckpointError(
            f"method {method!r} needs {', '.join(lacking)}, which {facts.family} ({facts.checkpoint!r}) lacks; it has "
            f"{', '.join(sorted(facts.offers)) or 'only tokens and their places'}. Choose another method{other}."
        )
    if not part.needs & {ENCODER_ATTENTION, ENCODER_KEYS}:
        return
    rows, layer = part.score_source
    if rows not in facts.score_sources:
        raise ConfigError(
            f"method {method!r} got score_source={rows!r}, but the vision encoder of {facts.checkpoint!r} has no such "
            f"rows of attention. Pass score_source={' or '.join(sorted(facts.score_sources))}."
        )
    if not -facts.num_vision_layers <= layer < facts.num_vision_layers:
        raise ConfigError(
            f"method {method!r} got score_layer={layer}, and the vision encoder of {facts.checkpoint!r} has "
            f"{facts.num_vision_layers} layers; expected {-facts.num_vision_layers} to {facts.num_vision_layers - 1}."
        )
    if layer % facts.num_vision_layers in facts.windowed_layers:
        whole = sorted(set(range(facts.num_vision_layers)) - facts.windowed_layers)
        raise ConfigError(
            f"method {method!r} got score_layer={layer}, in which the vision encoder of {facts.checkpoint!r} attends "
            f"within windows, so scores can't be compared. Pass score_layer={' or '.join(map(str, whole))}."
        )


def _check_mixing(method: str, part: SelectionPart, connector: ConnectorPart | None) -> None:
    if CONNECTOR_INPUTS in part.needs and connector is not None and any(route.then for route in connector.routes):
        raise ConfigError(
            f"method {method!r} can't be run: its selection part mixes the connector's inputs, and its connector part "
            "reduces the connector's outputs. Let the selection work on visual tokens (visionzip: merge_at=decoder), "
            "or leave one of them out."
        )


def register(name: str) -> Callable[[P], P]:
    """Class decorator that registers a part as method `name` in this process, for scripts and notebooks.

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
    """The names of all methods, sorted."""
    return tuple(sorted({*BUILT_IN, *_plugins(), *_registered}))


def is_installed(name: str) -> bool:
    """Whether other processes also know a method: it is built in, or an entry point of an installed package."""
    return name in BUILT_IN or name in _plugins()


def describe(name: str) -> str:
    """The method's docstring: what it does, and its source. A built-in method is read without importing it."""
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
        ConfigError: the method is unknown (the message lists the known ones), or an entry point of another package does
            not name a part.
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
            f"method {point.name!r} is {point.value!r}, which is not a part of a method; expected a subclass of "
            "ResolutionPart, PixelPart, ConnectorPart, SelectionPart or DecoderPart of vico_eval.methods.interface."
        )
    return found


def parameters(method: str) -> dict[str, Field[Any]]:
    """The hyper-parameters of a method or combination, keyed by argument name."""
    return by_name(_configs(method))


def spellings(method: str) -> set[str]:
    """Every spelling of a method's hyper-parameters, with and without the name of the part that takes them."""
    return {
        spelled
        for part, config in _configs(method).items()
        for field in fields(config)
        for spelled in (field.name, f"{part}.{field.name}")
    }


def _configs(method: str) -> dict[str, type]:
    """The `Config` of each part, by the part's name.

    Raises:
        ConfigError: as `load`; or two parts in one place.
    """
    by_place: dict[str, str] = {}
    for name in _split(method):
        place = load(name).place
        if place in by_place:
            raise ConfigError(f"method {method!r} has two parts in the {place}; expected at most one in each place.")
        by_place[place] = name
    return {name: load(name).Config for name in by_place.values()}


def build(method: str, arguments: Mapping[str, Any] | None = None) -> Method:
    """A method from its name and hyper-parameters.

    Args:
        method: a name, or several joined by `+`, each acting in a different place ("single_tile+vico+fastv").
        arguments: hyper-parameters by name; by part and name if several parts take the same one ("fastv.keep_ratio").

    Raises:
        ConfigError: unknown method or argument, two parts in one place, parts that exclude each other, or a value that
            a part refuses.
    """
    configs, arguments = _configs(method), dict(arguments or {})
    _refuse_two_targets(method, configs, arguments)
    parts = {name: load(name)(typed(configs[name], own)) for name, own in of_parts(method, configs, arguments).items()}
    built = Method(name=method, **{part.place: part for part in parts.values()})  # type: ignore[arg-type]
    _refuse_fewer_tokens(built)
    return built


def _refuse_fewer_tokens(method: Method) -> None:
    """Raises ConfigError if the decoder part needs whole tiles and another part removes tokens from them."""
    if method.decoder is None or not method.decoder.needs_whole_tiles:
        return
    place = "selection" if method.selection is not None else None
    if method.connector is not None and len(method.connector.routes) > 0:
        place = "connector"
    if place is not None:
        raise ConfigError(
            f"method {method.name!r} can't be built: its decoder part needs every tile with all its visual tokens, and "
            f"its {place} part removes some. Leave one of them out."
        )


def _refuse_two_targets(method: str, configs: Mapping[str, type], arguments: Mapping[str, Any]) -> None:
    takers = [name for name, config in configs.items() if RATIO_FROM in {field.name for field in fields(config)}]
    given = [name for name, value in arguments.items() if name.rpartition(".")[2] == RATIO_FROM and value is not None]
    if len(takers) > 1 and (RATIO_FROM in given or len(given) > 1):
        others = [name for name in sorted(by_name(configs)) if name.rpartition(".")[2] != RATIO_FROM]
        raise ConfigError(
            f"{' and '.join(map(repr, takers))} would each save as much as ratio_from measured, and more together. "
            f"Give it to one of them ({takers[0]}.{RATIO_FROM}=), or set their own arguments: {', '.join(others)}."
        )


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
