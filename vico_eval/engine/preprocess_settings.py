"""Settings of preprocessing that deviate from the checkpoint's."""

from __future__ import annotations

from dataclasses import dataclass

from vico_eval.engine.tile_limits import parse_grid
from vico_eval.errors import ConfigError
from vico_eval.families.family import MOST, MOST_PIXELS


@dataclass(frozen=True, kw_only=True)
class PreprocessSettings:
    """Deviations from the checkpoint's settings for images, videos and messages."""

    max_tiles: int | None = None
    """Maximum number of tiles per image, without the thumbnail, for requests without their own limit."""

    total_max_tiles: int | None = None
    """Maximum number of tiles of all images of a request, for requests without their own total. Each image gets total
    // images, at least 1, as in VLMEvalKit. None is no limit."""

    tiles: str | int | None = None
    """Columns x rows of tiles that every image is resized to, such as `2x2`, regardless of its aspect ratio and the
    request's limits. Video frames stay one tile. None chooses by aspect ratio."""

    min_pixels: int | None = None
    max_pixels: int | None = None
    """Limit on an image's pixels, for checkpoints that resize images to their patches and requests without their own
    limit."""

    num_frames: int | None = None
    """Frames of a video."""

    fps: float | None = None
    """Frames per second of a video instead of num_frames, for checkpoints that sample videos by rate."""

    label_images: bool = True
    """Whether several images are introduced as `Image-1: `; otherwise they have no label."""

    system_prompt: str | None = None
    """The user's system message, which replaces any other."""

    thinking: bool = False
    """Whether the model is told to think before it answers."""

    def __post_init__(self) -> None:
        for name, most in (
            *dict.fromkeys(("max_tiles", "total_max_tiles", "num_frames"), MOST).items(),
            *dict.fromkeys(("min_pixels", "max_pixels"), MOST_PIXELS).items(),
        ):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or not 1 <= value <= most):
                raise ConfigError(f"Got {name}={value!r}; expected an integer from 1 to {most}.")
        if self.min_pixels is not None and self.max_pixels is not None and self.min_pixels > self.max_pixels:
            raise ConfigError(f"Got min_pixels={self.min_pixels} and max_pixels={self.max_pixels}; expected no less.")
        if self.fps is not None and (self.num_frames is not None or not 0 < self.fps <= MOST):
            raise ConfigError(
                f"Got fps={self.fps} and num_frames={self.num_frames}; expected frames per second above 0 or a "
                "number of frames, not both."
            )
        if self.tiles is not None:
            parse_grid(self.tiles)
            if limits := [name for name in ("max_tiles", "total_max_tiles") if getattr(self, name) is not None]:
                raise ConfigError(
                    f"Got tiles={self.tiles} and {' and '.join(limits)}; tiles is the number of an image. Leave out "
                    f"{' and '.join(limits)}, or tiles."
                )
        if self.thinking and self.system_prompt is not None:
            raise ConfigError(
                "Got both thinking and system_prompt; thinking is a system prompt of its own. Leave out one of them."
            )
