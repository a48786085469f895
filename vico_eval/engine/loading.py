"""From a checkpoint's name, a method and settings to an engine that answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from vico_eval.engine.cpu import prepare_for_cpu
from vico_eval.engine.engine import Answer, Engine
from vico_eval.engine.generation import own_settings
from vico_eval.engine.preprocess import Preprocessor, PreprocessSettings
from vico_eval.engine.requests import (
    THINKING_GENERATION,
    GenerationSettings,
    ImageInput,
    ImageSource,
    Message,
    Request,
    Text,
    VideoInput,
)
from vico_eval.errors import CheckpointError, ConfigError, did_you_mean
from vico_eval.families.family import FamilyCheckpoint, Placement
from vico_eval.families.internvl.family import InternVL
from vico_eval.families.placement import check_attention, check_device, torch_dtype
from vico_eval.logs import logger
from vico_eval.methods import registry
from vico_eval.methods.arguments import typed
from vico_eval.methods.interface import ModelFacts, Part, ResolutionPart
from vico_eval.methods.registry import Method


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """What to load and how to ask it; every field is also a model argument in lmms-eval."""

    pretrained: str
    """A folder, a hub id (`OpenGVLab/InternVL3_5-8B-Flash`) or a built-in checkpoint (`vico-tiny`)."""

    method: str = "vanilla"
    """Name of a method, or several joined by `+`."""

    allow_pickle: bool = False
    """Read weights from `.bin` files where there are no safetensors, as plain tensors only (torch's `weights_only`)."""

    flash_from: str | None = None
    """ViCO checkpoint that gives base weights its low connector, and decides by its own encoder and router."""

    dtype: str = "auto"
    """float32, bfloat16, float16, or auto: the checkpoint's own on a GPU, float32 on the CPU (few compute in bf16)."""

    device: str | None = None
    """cpu, cuda, cuda:1, ...; by default a GPU where there is one."""

    device_map: str | None = None
    """auto, balanced, ...: spreads one model over several GPUs; instead of `device`."""

    attn_implementation: str = "sdpa"
    """sdpa, flash_attention_2 or eager."""

    batch_size: int = 1
    """Documents answered together."""

    max_tiles: int | None = None
    """Tiles of an image, thumbnail not counted; by default the benchmark's limit, else the checkpoint's."""

    total_max_tiles: int | None = None
    """Tiles that the images of one document share; by default the benchmark's limit."""

    tiles: str | int | None = None
    """Columns x rows, as in 2x2, of tiles that every image is resized to, with the thumbnail of the checkpoint; in the
    place of max_tiles, total_max_tiles and the benchmark's limits, by which an image's shape chooses."""

    num_frames: int | None = None
    """Frames of a video, one tile each; by default the checkpoint's, 64 in every released one."""

    label_images: bool = True
    """Introduce several images as `Image-1:`, `Image-2:`, ...; otherwise in plain order."""

    system_prompt: str | None = None
    """Instead of the checkpoint's own."""

    thinking: bool = False
    """InternVL3.5's thinking mode. Answers are sampled as InternVL's authors do where a task doesn't say otherwise;
    a task's stop strings are left out, since they would end a thought."""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"batch_size is {self.batch_size}; expected at least 1.")


@dataclass(frozen=True)
class Opened:
    """An engine and what it was made of."""

    engine: Engine
    settings: EngineSettings
    method: Method
    checkpoint: FamilyCheckpoint
    donor: FamilyCheckpoint | None


def split_arguments(method: str, arguments: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arguments of the engine, and those of the method.

    Raises:
        ConfigError: an argument that neither knows; lists the valid ones.
    """
    engine_names = {field.name for field in fields(EngineSettings)}
    spelled = engine_names | registry.spellings(method)
    for name in arguments:
        if name not in spelled:
            known = sorted(engine_names | set(registry.parameters(method)))
            raise ConfigError(
                f"unknown argument {name!r} for method {method!r}{did_you_mean(name, known)}; "
                f"known are {', '.join(known)}."
            )
    own = {name: value for name, value in arguments.items() if name in engine_names}
    return own, {name: value for name, value in arguments.items() if name not in engine_names}


def open_engine(arguments: Mapping[str, Any], *, show_progress: bool = True) -> Opened:
    """Check everything that can be checked, then load.

    Args:
        arguments: fields of `EngineSettings` and of the method's own configuration.
        show_progress: a progress bar over documents.

    Raises:
        ConfigError: an unknown or impossible argument.
        CheckpointError: a checkpoint that is missing, incomplete, or lacks what the method needs.
    """
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
    family = InternVL()
    checkpoint = family.find(settings.pretrained, allow_pickle=settings.allow_pickle)
    donor = None
    if settings.flash_from is not None:
        donor = family.find(settings.flash_from, allow_pickle=settings.allow_pickle)
    check_tiles(settings.tiles, method.parts, checkpoint.facts)
    method.check(checkpoint.facts, None if donor is None else donor.facts)
    for part in method.parts:
        if donor is not None and part.needs_donor:
            part.check_donor(donor.identity, donor.name)
    if own := own_settings(checkpoint.folder):
        logger.warning(
            f"{checkpoint.name} comes with generation settings, which are not applied: "
            f"{', '.join(f'{name}={value}' for name, value in own.items())}. Answers are generated as the task says."
        )
    tokenizer = family.tokenizer(checkpoint)
    preprocessor = Preprocessor(
        tokenizer,
        family.prompting(checkpoint),
        PreprocessSettings(
            max_tiles=settings.max_tiles,
            total_max_tiles=settings.total_max_tiles,
            tiles=settings.tiles,
            num_frames=settings.num_frames,
            label_images=settings.label_images,
            system_prompt=settings.system_prompt,
            thinking=settings.thinking,
        ),
        method.resolution,
    )
    placement = Placement(
        dtype="float32" if settings.dtype == "auto" and _is_cpu(device) else settings.dtype,
        device=device,
        device_map=settings.device_map,
        attn_implementation=settings.attn_implementation,
    )
    model = family.load(checkpoint, placement, preprocessor.image_token_id)
    if donor is not None:
        family.adopt(model, donor, routes=method.needs_donors_router)
    if _is_cpu(device):
        prepare_for_cpu(model)
    engine = Engine(model, tokenizer, preprocessor, method, batch_size=settings.batch_size, show_progress=show_progress)
    return Opened(engine=engine, settings=settings, method=method, checkpoint=checkpoint, donor=donor)


def check_tiles(tiles: str | int | None, parts: Iterable[Part], facts: ModelFacts | None = None) -> None:
    """See that `tiles` has the last word on how images are cut.

    Args:
        tiles: the argument; None cuts by shape.
        parts: of the method.
        facts: of the checkpoint, where it is known.

    Raises:
        ConfigError: a part chooses an image's grid too.
        CheckpointError: the checkpoint cuts no images into tiles.
    """
    if tiles is None:
        return
    if choosing := [part for part in parts if isinstance(part, ResolutionPart)]:
        name = type(choosing[0]).__name__
        raise ConfigError(
            f"got tiles={tiles} and a method whose part {name} chooses how an image is cut. Leave out tiles, or that "
            "part of the method."
        )
    if facts is not None and facts.tile is None:
        raise CheckpointError(
            f"got tiles={tiles}, and checkpoint {facts.checkpoint!r} ({facts.family}) does not cut images into tiles. "
            "Leave it out."
        )


def _is_cpu(device: str | None) -> bool:
    return device is not None and torch.device(device).type == "cpu"


def _device(settings: EngineSettings) -> str | None:
    if settings.device is not None or settings.device_map is not None:
        return settings.device
    return "cuda" if torch.cuda.is_available() else "cpu"


class Model:
    """A checkpoint with a method, for notebooks and scripts."""

    def __init__(self, opened: Opened) -> None:
        self.engine = opened.engine
        self.method = opened.method
        self._generation = THINKING_GENERATION if opened.settings.thinking else {}

    def ask(
        self,
        question: str,
        images: ImageSource | Iterable[ImageSource] | None = None,
        video: str | Path | None = None,
        **generation: Any,
    ) -> Answer:
        """The model's answer to one question about images or a video, with its token account.

        Args:
            question: text; the images stand in front of it, in order.
            images: one image or several: open ones, paths or the bytes of image files.
            video: path of a video file.
            **generation: fields of `GenerationSettings` (max_new_tokens, do_sample, temperature, ...).

        Raises:
            DocumentError: an image or video that can't be read.
            ConfigError: an unknown generation argument.
        """
        several = [images] if isinstance(images, ImageSource) else [] if images is None else images
        media = [ImageInput(image) for image in several] + ([VideoInput(video)] if video is not None else [])
        request = Request(
            key="ask",
            messages=(Message("user", (*media, Text(question))),),
            generation=GenerationSettings.from_gen_kwargs(generation, **self._generation),
        )
        return self.engine.answer([request])[0]


def load(pretrained: str | Path, method: str = "vanilla", **arguments: Any) -> Model:
    """Load a checkpoint with a method.

    Args:
        pretrained: a folder, a hub id or a built-in checkpoint.
        method: name of a method, or several joined by `+` (`vico-eval methods` lists them).
        **arguments: fields of `EngineSettings` and hyper-parameters of the method.

    Example:
        >>> import vico_eval
        >>> model = vico_eval.load("vico-tiny", method="vico")
        >>> answer = model.ask("What number is shown?", images=["page.png"])
        >>> answer.text, answer.account.visual_tokens
    """
    return Model(open_engine({"pretrained": pretrained, "method": method, **arguments}, show_progress=False))
