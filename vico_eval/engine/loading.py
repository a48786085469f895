"""Opening an engine from a checkpoint's name, a method and settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from vico_eval.engine.cpu import prepare_for_cpu
from vico_eval.engine.decode.backend import Backend
from vico_eval.engine.decode.opening import check_can_decode, open_servers, start_here
from vico_eval.engine.engine import Engine
from vico_eval.engine.generation import own_settings
from vico_eval.engine.preprocess import Preprocessor
from vico_eval.engine.preprocess_settings import PreprocessSettings
from vico_eval.engine.settings import TRANSFORMERS, VLLM, EngineSettings
from vico_eval.errors import CheckpointError, ConfigError, UnknownName, did_you_mean
from vico_eval.families.family import Family, FamilyCheckpoint, Placement
from vico_eval.families.placement import check_attention, check_device, torch_dtype
from vico_eval.families.registry import family_of
from vico_eval.logs import logger
from vico_eval.methods import registry
from vico_eval.methods.arguments import typed
from vico_eval.methods.interface import RESOLUTION, ModelFacts, Part
from vico_eval.methods.registry import Method


@dataclass(frozen=True, kw_only=True)
class Found:
    """A checkpoint and a method that passed all checks possible without reading weights."""

    settings: EngineSettings
    method: Method
    family: Family
    checkpoint: FamilyCheckpoint
    donor: FamilyCheckpoint | None
    tokenizer: PreTrainedTokenizerBase
    preprocessor: Preprocessor
    placement: Placement

    dtype: str | None
    """The compute dtype; None if only the weights determine it."""

    device: str | None
    """The device of the decoder's input; None if a device map decides."""


@dataclass(frozen=True, kw_only=True)
class Opened(Found):
    """A loaded checkpoint with its methods."""

    engine: Engine


def split_arguments(method: str, arguments: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split arguments into the engine's and the method's.

    Raises:
        ConfigError: neither has such an argument; the message lists the valid ones.
    """
    engine_names = {field.name for field in fields(EngineSettings)}
    spelled = engine_names | registry.spellings(method)
    for name in arguments:
        if name not in spelled:
            known = sorted(engine_names | set(registry.parameters(method)))
            raise UnknownName(
                f"unknown argument {name!r} for method {method!r}{did_you_mean(name, known)}; "
                f"known are {', '.join(known)}.",
                name,
                known,
            )
    own = {name: value for name, value in arguments.items() if name in engine_names}
    return own, {name: value for name, value in arguments.items() if name not in engine_names}


def open_engine(arguments: Mapping[str, Any], *, show_progress: bool = True) -> Opened:
    """Check the arguments and the checkpoint, then load the weights.

    Args:
        arguments: fields of `EngineSettings` and of the method's configuration.
        show_progress: show a progress bar over documents.

    Raises:
        ConfigError: an argument is unknown or invalid.
        CheckpointError: the checkpoint is missing, incomplete, or lacks parts that the method needs.
    """
    found = find_engine(arguments)
    engine = open_rows([found], show_progress=show_progress)
    return Opened(engine=engine, **{**vars(found), **described(engine)})


def described(engine: Engine) -> dict[str, str]:
    """Return a loaded model's compute dtype and the device of its decoder's input."""
    return {"dtype": str(engine.model.dtype).removeprefix("torch."), "device": str(engine.model.decoder_device)}


def find_engine(arguments: Mapping[str, Any]) -> Found:
    """Make all checks that are possible without reading weights; see `open_engine`."""
    method_name = str(arguments.get("method", "vanilla"))
    own, method_arguments = split_arguments(method_name, arguments)
    settings = typed(EngineSettings, own)
    method = registry.build(method_name, method_arguments).resolved()
    if method.needs_donor != (settings.flash_from is not None):
        raise ConfigError(
            f"method {method_name!r} needs flash_from=, the ViCO checkpoint that gives low connector and decisions."
            if method.needs_donor
            else f"method {method_name!r} takes no flash_from; only vanilla_vir borrows another checkpoint's parts."
        )
    check_device(settings.device)
    device = _device(settings)
    torch_dtype(settings.dtype)
    check_attention(settings.attn_implementation, is_on_cpu=_is_cpu(device))
    family = family_of(settings.pretrained)
    if settings.engine == VLLM:
        check_can_decode(settings, method, family)
    checkpoint = family.find(settings.pretrained, allow_pickle=settings.allow_pickle)
    donor = None
    if settings.flash_from is not None:
        donor = family.find(settings.flash_from, allow_pickle=settings.allow_pickle)
    check_tiles(settings.tiles, method.parts, checkpoint.facts)
    check_limits(settings, checkpoint.facts)
    method = method.suited(checkpoint.facts)
    method.check(checkpoint.facts, None if donor is None else donor.facts)
    for part in method.parts:
        if donor is not None and part.needs_donor:
            part.check_donor(donor.identity, donor.name)
    placement = Placement(
        dtype="float32" if settings.dtype == "auto" and _is_cpu(device) else settings.dtype,
        device=device,
        device_map=settings.device_map,
        attn_implementation=settings.attn_implementation,
    )
    tokenizer = family.tokenizer(checkpoint)
    preprocessor = Preprocessor(
        tokenizer,
        family.prompting(checkpoint),
        PreprocessSettings(
            max_tiles=settings.max_tiles,
            total_max_tiles=settings.total_max_tiles,
            tiles=settings.tiles,
            min_pixels=settings.min_pixels,
            max_pixels=settings.max_pixels,
            num_frames=settings.num_frames,
            fps=settings.fps,
            label_images=settings.label_images,
            system_prompt=settings.system_prompt,
            thinking=settings.thinking,
        ),
        method.resolution,
    )
    return Found(
        settings=settings,
        method=method,
        family=family,
        checkpoint=checkpoint,
        donor=donor,
        tokenizer=tokenizer,
        preprocessor=preprocessor,
        placement=placement,
        dtype=_dtype_name(checkpoint.dtype) if placement.dtype == "auto" else placement.dtype,
        device=None if device is None else str(torch.empty(0, device=device).device),
    )


def open_rows(found: Sequence[Found], *, show_progress: bool = True) -> Engine:
    """Load the weights once for several methods, which answer in lockstep and in this order.

    Args:
        found: one or more, with the same checkpoint and settings but different methods.
        show_progress: show a progress bar over documents.

    Raises:
        ConfigError: they can't share weights; the message gives the differences.
        CheckpointError: the weights don't match the model.
    """
    first = found[0]
    for other in found[1:]:
        check_same_model(first, other)
    if own := own_settings(first.checkpoint.folder):
        logger.warning(
            f"{first.checkpoint.name} comes with generation settings, which are not applied: "
            f"{', '.join(f'{name}={value}' for name, value in own.items())}. Answers are generated as the task says."
        )
    with_decoder = first.settings.engine == TRANSFORMERS
    model: Any = first.family.load(
        first.checkpoint, first.placement, first.preprocessor.image_token_id, with_decoder=with_decoder
    )
    if donor := next((one.donor for one in found if one.donor is not None), None):
        first.family.adopt(model, donor, routes=any(one.method.needs_donors_router for one in found))
    if _is_cpu(first.placement.device):
        prepare_for_cpu(model)
    return Engine(
        model,
        first.tokenizer,
        first.preprocessor,
        [one.method for one in found],
        batch_size=first.settings.batch_size,
        show_progress=show_progress,
        backend=None if with_decoder else _backend(first, model),
    )


def _backend(found: Found, model: Any) -> Backend:
    settings = found.settings
    if settings.server is None:
        return start_here(settings, found.family.decoder_folder(found.checkpoint), model)
    return open_servers(settings.server, found.checkpoint, model, found.tokenizer, found.preprocessor.prompting.stop)


_LENT = frozenset({"low_connector", "router", "image_router"})
"""Parts that a donor may supply."""

OF_A_ROW = ("method", "flash_from")
"""Fields of `EngineSettings` in which rows with shared weights may differ."""


def check_same_model(one: Found, other: Found) -> None:
    """Check that two methods can answer in lockstep.

    Raises:
        ConfigError: they differ in checkpoint, donor, or in settings that answers depend on.
    """
    names = [field.name for field in fields(EngineSettings) if field.name not in OF_A_ROW]
    different = [name for name in names if getattr(one.settings, name) != getattr(other.settings, name)]
    donors = {donor.folder for donor in (one.donor, other.donor) if donor is not None}
    # A donor's parts replace the model's own, which the other row needs.
    has_own = (one.donor is None or other.donor is None) and not _LENT.isdisjoint(one.checkpoint.facts.parts)
    if len(donors) > 1 or (has_own and not donors <= {one.checkpoint.folder}):
        different.append("flash_from")
    if different:
        raise ConfigError(
            f"methods {one.method.name!r} and {other.method.name!r} can't answer in one pass: they differ in "
            f"{', '.join(different)}. Run them in separate passes."
        )


def check_tiles(tiles: str | int | None, parts: Iterable[Part], facts: ModelFacts | None = None) -> None:
    """Check that nothing but `tiles` decides on an image's grid.

    Args:
        tiles: the argument; None chooses the grid by aspect ratio.
        parts: the method's parts.
        facts: the checkpoint's facts, if known.

    Raises:
        ConfigError: a part of the method also chooses the grid.
        CheckpointError: the checkpoint has no tiles.
    """
    if tiles is None:
        return
    if choosing := [part for part in parts if part.place == RESOLUTION]:
        name = type(choosing[0]).__name__
        raise ConfigError(
            f"got tiles={tiles} and a method whose part {name} chooses an image's grid. Leave out tiles, or that "
            "part of the method."
        )
    if facts is not None and facts.tile is None:
        raise CheckpointError(
            f"got tiles={tiles}, and checkpoint {facts.checkpoint!r} ({facts.family}) does not cut images into tiles. "
            "Leave it out."
        )


def check_limits(settings: EngineSettings, facts: ModelFacts) -> None:
    """Check that limits on an image's size are of the checkpoint's kind.

    Raises:
        CheckpointError: the limits are on tiles but the checkpoint has none, or on pixels but it has tiles.
    """
    kinds = {
        "does not cut images into tiles": ("max_tiles", "total_max_tiles") if facts.tile is None else (),
        "neither resizes images to its patches nor shows videos by the second": ("min_pixels", "max_pixels", "fps")
        if facts.pixels is None
        else (),
    }
    for lacks, names in kinds.items():
        if given := [name for name in names if getattr(settings, name) is not None]:
            raise CheckpointError(
                f"got {' and '.join(given)}, and checkpoint {facts.checkpoint!r} ({facts.family}) {lacks}. Leave out "
                f"{' and '.join(given)}."
            )


def _dtype_name(dtype: torch.dtype | None) -> str | None:
    return None if dtype is None else str(dtype).removeprefix("torch.")


def _is_cpu(device: str | None) -> bool:
    return device is not None and torch.device(device).type == "cpu"


def _device(settings: EngineSettings) -> str | None:
    if settings.device is not None or settings.device_map is not None:
        return settings.device
    return "cuda" if torch.cuda.is_available() else "cpu"
