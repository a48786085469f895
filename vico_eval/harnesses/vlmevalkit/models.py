"""Our VLMEvalKit models, one per kind of checkpoint.

Prompts of each data set, and the places of images in them, come from VLMEvalKit's own classes, which are inherited
without loading their models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
from PIL import Image
from vlmeval.vlm.internvl import InternVLChat
from vlmeval.vlm.internvl.utils import build_video_prompt, reorganize_prompt
from vlmeval.vlm.qwen2_vl.prompt import Qwen2VLPromptMixin
from vlmeval.vlm.qwen3_vl.prompt import Qwen3VLPromptMixin

from vico_eval.engine.engine import Engine
from vico_eval.engine.media import load_image
from vico_eval.engine.previews import previewed_frames
from vico_eval.engine.requests import GenerationSettings, ImageInput, Message, Request, Text, VideoInput
from vico_eval.engine.settings import EngineSettings
from vico_eval.engine.tile_limits import tile_limit, total_tile_limit
from vico_eval.errors import ConfigError
from vico_eval.families.internvl.prompts import IMAGE_MARK
from vico_eval.harnesses.lmms_eval.kinds import QWEN2_5_VL, QWEN3_VL, Kind
from vico_eval.harnesses.pixel_limits import pixel_limits
from vico_eval.harnesses.vlmevalkit.adapter import CompressedModel
from vico_eval.runs.schema import VLMEVALKIT
from vico_eval.runs.write import RunFolder

THINKING_QUESTION = "Please answer the question and put the final answer within \\boxed{}."
"""Suffix of questions in VLMEvalKit's entries of InternVL3.5 in thinking mode."""


class CompressedInternVL(CompressedModel, InternVLChat):  # type: ignore[misc]
    """InternVL with the prompts of VLMEvalKit's `InternVLChat`."""

    def __init__(
        self, engine: Engine, settings: EngineSettings, run: RunFolder, generation: GenerationSettings
    ) -> None:
        super().__init__(engine, settings, run, generation)
        # Attributes that InternVLChat.build_prompt reads.
        self._use_custom_prompt = True
        self.use_mpo_prompt = False
        self.use_cot = settings.thinking
        self.cot_prompt = THINKING_QUESTION if settings.thinking else None
        self.kwargs: dict[str, Any] = {}

    def message_of(self, line: pd.Series, dataset: str) -> list[dict[str, Any]]:
        """Return InternVL's prompt, or the data set's own if InternVL has none."""
        if InternVLChat.use_custom_prompt(self, dataset):
            message: list[dict[str, Any]] = InternVLChat.build_prompt(self, line, dataset)
        else:
            message = self._dataset.build_prompt(line)
        return message

    def film_message_of(self, line: pd.Series, dataset: Any) -> list[dict[str, Any]]:
        """Return the data set's own prompt, with the video's frames."""
        message: list[dict[str, Any]] = dataset.build_prompt(line, video_llm=False)
        return message

    def request_of(
        self, key: str, message: Sequence[dict[str, Any]], *, is_video: bool, dataset: str | None
    ) -> Request:
        """Place images like `InternVLChat`, with the first image of a document of MMMU at twice its size."""
        paths = [part["value"] for part in message if part["type"] == "image"]
        prompt = reorganize_prompt(message, len(paths), dataset=dataset)
        if is_video:
            prompt = build_video_prompt(prompt, dataset)
        previewed = previewed_frames(len(paths)) if is_video else range(len(paths))
        images = [
            ImageInput(path, is_frame=is_video, is_previewed=number in previewed) for number, path in enumerate(paths)
        ]
        if images and "MMMU" in self._task:
            images[0] = _enlarged(paths[0])
        return Request(
            key=key,
            messages=(Message("user", _interleaved(prompt, images)),),
            generation=self._generation,
            max_tiles=1 if is_video else tile_limit(self._task, self._settings.max_tiles),
            total_max_tiles=total_tile_limit(self._task, self._settings.total_max_tiles),
        )


class CompressedQwenVL(CompressedModel):
    """Qwen2.5-VL or Qwen3-VL with the prompts of VLMEvalKit's mixins.

    Parts of a message are joined by the checkpoint's chat template, in order.
    """

    def __init__(
        self, engine: Engine, settings: EngineSettings, run: RunFolder, generation: GenerationSettings, kind: Kind
    ) -> None:
        super().__init__(engine, settings, run, generation)
        self._kind = kind
        self._prompts = _PROMPTS[kind.name]()

    def set_dump_image(self, dump_image_func: Callable[..., Any]) -> None:
        """Set the function for all models; it also writes the prompts' images."""
        super().set_dump_image(dump_image_func)
        self._prompts.set_dump_image(dump_image_func)

    def message_of(self, line: pd.Series, dataset: str) -> list[dict[str, Any]]:
        """Return Qwen-VL's prompt, or the data set's own if Qwen-VL has none."""
        if self._prompts.use_custom_prompt(dataset):
            message: list[dict[str, Any]] = self._prompts.build_prompt(line, dataset)
        else:
            message = self._dataset.build_prompt(line)
        return message

    def film_message_of(self, line: pd.Series, dataset: Any) -> list[dict[str, Any]]:
        """Return the data set's own prompt, with the video file and the number of frames in the data set's name."""
        message: list[dict[str, Any]] = dataset.build_prompt(line, video_llm=True)
        return [{**part, "num_frames": dataset.nframe} if part["type"] == "video" else part for part in message]

    def request_of(
        self, key: str, message: Sequence[dict[str, Any]], *, is_video: bool, dataset: str | None
    ) -> Request:
        """Convert the parts in order, with images within the pixel limits of VLMEvalKit's own entries of this kind."""
        settings = self._settings
        limits = pixel_limits(
            VLMEVALKIT,
            self._kind.name,
            self._task,
            min_pixels=settings.min_pixels,
            max_pixels=settings.max_pixels,
        )
        return Request(
            key=key,
            messages=(Message("user", tuple(map(_part, message))),),
            generation=self._generation,
            **limits._asdict(),
        )


_PROMPTS = {QWEN2_5_VL.name: Qwen2VLPromptMixin, QWEN3_VL.name: Qwen3VLPromptMixin}


def open_model(
    kind: Kind, engine: Engine, settings: EngineSettings, run: RunFolder, generation: GenerationSettings
) -> CompressedModel:
    """Open the model of a kind of checkpoint."""
    if kind.name in _PROMPTS:
        return CompressedQwenVL(engine, settings, run, generation, kind)
    return CompressedInternVL(engine, settings, run, generation)


def _part(part: dict[str, Any]) -> Text | ImageInput | VideoInput:
    if part["type"] == "text":
        return Text(part["value"])
    if part["type"] == "image":
        return ImageInput(part["value"])
    if part["type"] == "video":
        return VideoInput(part["value"], num_frames=part.get("num_frames"))
    raise ConfigError(f"a document contains {part['type']}; this model accepts text, images and video.")


def _interleaved(prompt: str, images: Sequence[ImageInput]) -> tuple[Text | ImageInput, ...]:
    """Split a prompt and images into parts of a message. Marks beyond the number of images are part of the question.

    The engine adds a line break after an image, as the prompts do.
    """
    first, *pieces = prompt.split(f"{IMAGE_MARK}\n", len(images)) if images else [prompt]
    if len(pieces) != len(images):
        raise ConfigError(
            f"VLMEvalKit's prompt has {len(pieces)} places for {len(images)} pictures; expected a line with "
            f"{IMAGE_MARK} for each. Leave this data set out."
        )
    parts: list[Text | ImageInput] = [Text(first)]
    for image, piece in zip(images, pieces, strict=True):
        parts += [image, Text(piece)]
    return tuple(parts)


def _enlarged(path: str) -> ImageInput:
    """Return the image at twice its size, as VLMEvalKit does for the first image of a document of MMMU."""
    image = load_image(path)
    return ImageInput(image.resize((2 * image.width, 2 * image.height), Image.Resampling.BILINEAR))
