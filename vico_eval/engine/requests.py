"""Requests to the engine: messages with images and videos, generation settings, and a stable key."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from vico_eval.errors import ConfigError

Role = Literal["system", "user", "assistant"]

ImageSource = Image.Image | str | Path | bytes
"""An open image, a path, a `file:` URL or the bytes of an image file."""

IGNORED_GEN_KWARGS = ("image_aspect_ratio", "image_sizes", "skip_special_tokens")
"""Keys in lmms-eval's tasks for other models, which have no effect here."""

THINKING_GENERATION = {"max_new_tokens": 2**16, "do_sample": True, "temperature": 0.6, "top_p": 0.95}
"""Default generation settings in thinking mode: those of VLMEvalKit's entries of InternVL3.5 in thinking mode (64K
tokens, sampled) and of its InternVL class (temperature, top_p)."""

QWEN3_THINKING_GENERATION = {
    "max_new_tokens": 40960,
    "do_sample": True,
    "temperature": 1.0,
    "top_p": 0.95,
    "top_k": 20,
}
"""Default generation settings of Qwen3-VL's thinking checkpoints: those of VLMEvalKit's entries. (Its runs on vLLM also
have a presence penalty.)"""


@dataclass(frozen=True)
class Text:
    """Text without markup: a literal `<image>` is seven characters, at which only `harnesses` may split it."""

    text: str


@dataclass(frozen=True)
class ImageInput:
    """One image."""

    source: ImageSource

    is_inline: bool = False
    """Whether it is inline in the text; otherwise it gets its own line, with a label if there are several images."""

    is_frame: bool = False
    """Whether it is a frame of a video, which is tiled like those of `VideoInput`."""

    is_previewed: bool = True
    """Whether it gets a preview if previews are kept; only a few frames of a video do."""


@dataclass(frozen=True)
class VideoInput:
    """A video file, or an interval of it."""

    source: str | Path | bytes

    start_s: float | None = None
    """Start in seconds; None is the beginning."""

    end_s: float | None = None
    """End in seconds; None is the end of the video."""

    num_frames: int | None = None
    """Number of frames; None uses the engine's setting."""

    def __post_init__(self) -> None:
        start_s, end_s = self.start_s or 0.0, self.end_s
        if start_s < 0 or (end_s is not None and end_s <= start_s):
            raise ConfigError(f"A video is to be shown from {start_s} s to {end_s} s; expected 0 <= start < end.")
        if self.num_frames is not None and not (_is_int(self.num_frames) and self.num_frames >= 1):
            raise ConfigError(f"A video is to show num_frames={self.num_frames!r}; expected an integer of at least 1.")


Part = Text | ImageInput | VideoInput


@dataclass(frozen=True)
class Message:
    """A turn of a conversation: its role, and text, images and videos in order."""

    role: Role
    content: tuple[Part, ...]

    def __post_init__(self) -> None:
        if self.role not in ("system", "user", "assistant"):
            raise ConfigError(f"A message has role {self.role!r}; expected system, user or assistant.")
        object.__setattr__(self, "content", tuple(self.content))
        for part in self.content:
            if not isinstance(part, (Text, ImageInput, VideoInput)):
                raise ConfigError(
                    f"A message contains a {type(part).__name__}; expected Text, ImageInput or VideoInput parts."
                )
            if self.role == "system" and not isinstance(part, Text):
                raise ConfigError(f"A system message contains a {type(part).__name__}; expected only text.")


@dataclass(frozen=True)
class GenerationSettings:
    """Settings of generation: greedy, or sampling with temperature, top_p and top_k if `do_sample`."""

    max_new_tokens: int = 1024

    do_sample: bool = False

    temperature: float = 1.0
    """Above 0."""

    top_p: float = 1.0
    """Share of probability to sample from, in (0, 1]."""

    top_k: int = 0
    """Number of tokens to sample from; 0 is all (transformers' default is 50)."""

    num_beams: int = 1

    repetition_penalty: float = 1.0

    seed: int | None = None
    """Seed of sampling; None leaves it to the engine."""

    until: tuple[str, ...] = ()
    """Strings at which the answer ends; they aren't part of it."""

    def __post_init__(self) -> None:
        for name in ("max_new_tokens", "num_beams"):
            _require(_is_int(getattr(self, name)) and getattr(self, name) >= 1, self, name, "an integer of at least 1")
        alone = self.num_beams == 1 or not self.do_sample
        _require(alone, self, "num_beams", "1 with do_sample: beams are searched, not sampled")
        _require(_is_int(self.top_k) and self.top_k >= 0, self, "top_k", "an integer of at least 0 (0: all)")
        _require(isinstance(self.do_sample, bool), self, "do_sample", "true or false")
        _require(_is_number(self.temperature) and self.temperature > 0, self, "temperature", "a number above 0")
        _require(_is_number(self.top_p) and 0 < self.top_p <= 1, self, "top_p", "a share in (0, 1]")
        penalty = self.repetition_penalty
        _require(_is_number(penalty) and penalty > 0, self, "repetition_penalty", "a number above 0")
        _require(self.seed is None or _is_int(self.seed), self, "seed", "an integer or None")
        is_list = isinstance(self.until, tuple) and all(isinstance(stop, str) and stop for stop in self.until)
        _require(is_list, self, "until", "a tuple of strings that are not empty")
        for name in ("temperature", "top_p", "repetition_penalty"):
            object.__setattr__(self, name, float(getattr(self, name)))  # transformers rejects integers

    @classmethod
    def from_gen_kwargs(cls, gen_kwargs: Mapping[str, Any], **defaults: Any) -> GenerationSettings:
        """Convert the `generation_kwargs` of an lmms-eval task, without changing them.

        A missing or null key takes its default. `do_sample` decides on sampling; without it, a temperature above 0
        does. lmms-eval writes temperature 0 or top_p 0 for greedy decoding, which they mean here regardless of
        `do_sample`. Sampling settings are dropped for greedy decoding, so that equal answers have equal settings.
        MM-Vet sets temperature 0.2 without sampling, which is greedy here, although lmms-eval's own InternVL samples.

        Args:
            gen_kwargs: the task's settings, which must not be changed because lmms-eval's cache computes its key from
                them twice.
            defaults: settings for keys that the task doesn't set.

        Raises:
            ConfigError: a key is unknown (the message lists the known ones) or a value is out of range.
        """
        known = [setting.name for setting in fields(cls)]
        if unknown := [key for key in gen_kwargs if key not in known and key not in IGNORED_GEN_KWARGS]:
            raise ConfigError(
                f"Unknown generation argument {', '.join(map(repr, unknown))}; known are {', '.join(known)}, "
                f"and {', '.join(IGNORED_GEN_KWARGS)} are accepted without effect."
            )
        given = {key: value for key, value in gen_kwargs.items() if key in known and value is not None}
        settings = {**defaults, **given}
        settings["until"] = stop_strings(settings.get("until"))
        if settings.get("temperature", 1) == 0 or settings.get("top_p", 1) == 0:
            settings["do_sample"] = False
        elif "do_sample" not in settings:
            settings["do_sample"] = "temperature" in settings
        if settings["do_sample"] is False:
            for name in ("temperature", "top_p", "top_k", "seed"):
                settings.pop(name, None)
        return cls(**settings)


@dataclass(frozen=True)
class Request:
    """A request to the model."""

    key: str
    """The document's name, the same in every run; `task/split/number` under lmms-eval."""

    messages: tuple[Message, ...]
    """An optional system message, then turns of user and assistant, ending with the user's."""

    generation: GenerationSettings = field(default_factory=GenerationSettings)

    max_tiles: int | None = None
    """Maximum number of tiles per image, without the thumbnail; None uses the engine's setting."""

    total_max_tiles: int | None = None
    """Maximum number of tiles of all images; each gets total // images, at least 1. None uses the engine's setting."""

    min_pixels: int | None = None
    max_pixels: int | None = None
    """Limit on an image's pixels, for checkpoints that resize images to their patches; None uses the engine's
    setting."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "messages", tuple(self.messages))
        if not self.key:
            raise ConfigError("A request has no key; expected one that names its document in every run.")
        roles = [message.role for message in self.messages]
        if not roles or roles[-1] != "user" or "system" in roles[1:]:
            raise ConfigError(
                f"Request {self.key} has messages of {', '.join(roles) or 'nobody'}; expected an optional system "
                "message first and a user's message last."
            )
        for name in ("max_tiles", "total_max_tiles", "min_pixels", "max_pixels"):
            value = getattr(self, name)
            if value is not None and not (_is_int(value) and value >= 1):
                raise ConfigError(f"Request {self.key} has {name}={value!r}; expected an integer of at least 1.")

    @property
    def words(self) -> str:
        """The user's text, one line per text part, without images and system message."""
        asked = (part for message in self.messages if message.role == "user" for part in message.content)
        return "\n".join(part.text for part in asked if isinstance(part, Text))


@dataclass(frozen=True, eq=False)
class DeferredRequest:
    """A request that is created when it is needed, because the images of a whole benchmark don't fit into memory."""

    key: str

    generation: GenerationSettings

    load: Callable[[], Request]
    """Creates the request, with the same key and generation settings. Called in a thread, and a second time if an
    earlier answer is compared first."""


def stop_strings(until: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the stop strings in a task's `until`."""
    if until is None:
        return ()
    # An empty string would end every answer at its start.
    return tuple(stop for stop in ((until,) if isinstance(until, str) else until) if stop)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < math.inf


def _require(holds: bool, settings: GenerationSettings, name: str, expected: str) -> None:
    if not holds:
        raise ConfigError(f"Generation got {name}={getattr(settings, name)!r}; expected {expected}.")
