"""InternVL's prompts and tiles, by a checkpoint's configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np

from vico_eval.errors import ConfigError
from vico_eval.families.family import MOST, Picture, Prompting, SizeLimits, Slot, Stand, Strip
from vico_eval.families.frame_choice import Clip, frame_indices
from vico_eval.families.internvl.prompts import (
    IMAGE_END,
    IMAGE_START,
    IMAGE_TOKEN,
    THINKING_SYSTEM_MESSAGE,
    get_template,
)
from vico_eval.families.internvl.tiling import TiledImage, tile_grid, tile_image
from vico_eval.methods.interface import ImageSize, ResolutionPart, TileLimits

if TYPE_CHECKING:
    from PIL import Image

    from vico_eval.families.internvl.config import VicoInternVLConfig
    from vico_eval.methods.interface import PixelPart


@dataclass(frozen=True, kw_only=True)
class InternVLSettings:
    """A checkpoint's settings for prompts and tiles."""

    tile_size: int = 448
    """Side of a tile in px."""

    min_tiles: int = 1

    max_tiles: int = 12
    """Default maximum number of tiles per image, without the thumbnail."""

    use_thumbnail: bool = True

    num_frames: int = 64
    """Default number of frames of a video, one tile each."""

    template: str = "internvl2_5"
    """Name of the conversation template."""

    system_message: str | None = None
    """The checkpoint's system message; None uses the template's."""

    def __post_init__(self) -> None:
        for name in ("tile_size", "min_tiles", "max_tiles", "num_frames"):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= MOST:
                raise ConfigError(f"Got {name}={value!r}; expected an integer from 1 to {MOST}.")
        get_template(self.template)

    @classmethod
    def of(cls, config: VicoInternVLConfig) -> InternVLSettings:
        """Return a checkpoint's settings."""
        return cls(**{name: getattr(config, name) for name in cls.__dataclass_fields__})


class InternVLPrompting(Prompting):
    """InternVL's templates and tiles."""

    image_token = IMAGE_TOKEN
    slot = IMAGE_START + IMAGE_END
    thinking_message = THINKING_SYSTEM_MESSAGE

    def __init__(self, settings: InternVLSettings) -> None:
        self.settings = settings
        self.template = get_template(settings.template)
        self.control = (IMAGE_START, IMAGE_END, IMAGE_TOKEN, *self.template.markers)
        self.end = self.template.end
        self.stop = self.template.stop
        self.num_frames = settings.num_frames
        self.system_message = settings.system_message

    def render(self, turns: Sequence[tuple[str, str]], system: str | None) -> str:
        """Return the conversation in the checkpoint's template, with the template's default if there is no system
        message."""
        return self.template.render(turns, system)

    def slot_ids(self, vocabulary: Mapping[str, int]) -> Slot:
        """Return the ids of `<img></img>`, between which visual tokens are inserted."""
        if missing := [token for token in (IMAGE_START, IMAGE_END, IMAGE_TOKEN) if token not in vocabulary]:
            raise ConfigError(
                f"The tokenizer has no token {', '.join(missing)}; expected the tokenizer of an InternVL checkpoint."
            )
        start, end = int(vocabulary[IMAGE_START]), int(vocabulary[IMAGE_END])
        return Slot(ids=(start, end), before=(start,), after=(end,))

    def image(self, number: int | None, *, is_inline: bool = False) -> Stand:
        """Return an image's own line, with the label `Image-1: ` if it is numbered."""
        if is_inline:
            return Stand(self.slot)
        return Stand(f"{self.slot}\n") if number is None else Stand(f"Image-{number}: {self.slot}\n", begins_line=True)

    def limits(self, asked: SizeLimits, num_images: int) -> TileLimits:
        """Return the caller's limits or the checkpoint's; images that share a total get total // images, at least 1."""
        most = asked.max_tiles or self.settings.max_tiles
        if asked.total_max_tiles is not None and num_images:
            most = max(1, min(most, asked.total_max_tiles // num_images))
        return TileLimits(min(self.settings.min_tiles, most), most)

    def cut(
        self, image: Image.Image, limits: TileLimits, resolution: ResolutionPart | PixelPart | None = None
    ) -> Picture:
        """Tile an image by the grid in the limits, or else the grid within the limits that is nearest to the image's
        aspect ratio, and add a thumbnail. A part may change the limits."""
        if resolution is not None:
            assert isinstance(resolution, ResolutionPart), "Method.check refuses a part that sets pixels"
            width, height = image.size
            limits = resolution.limits(
                ImageSize(
                    width=width,
                    height=height,
                    tile_size=self.settings.tile_size,
                    limits=limits,
                    num_tiles=lambda other: self.num_tiles(width, height, other),
                )
            )
        return _picture(
            tile_image(
                image,
                min_tiles=limits.min_tiles,
                max_tiles=limits.max_tiles,
                tile_size=self.settings.tile_size,
                use_thumbnail=self.settings.use_thumbnail,
                grid=limits.grid,
            )
        )

    def cut_frame(self, frame: Image.Image) -> Picture:
        """Make a tile of a frame."""
        return _picture(tile_image(frame, max_tiles=1, tile_size=self.settings.tile_size))

    def choose_frames(
        self,
        total: int,
        fps: float | None,
        num_frames: int | None,
        rate: float | None = None,
        *,
        first: int = 0,
        last: int | None = None,
    ) -> list[int]:
        """Choose evenly spaced frames; by default, the checkpoint's number."""
        return frame_indices(total, num_frames or self.num_frames, first=first, last=last)

    def show(self, clip: Clip) -> Strip:
        """Return one tile per frame, on numbered lines."""
        pictures = [self.cut_frame(frame) for frame in clip.frames]
        text = "".join(f"Frame{number}: {self.slot}\n" for number in range(1, len(pictures) + 1))
        return Strip(pictures, Stand(text, begins_line=True))

    def num_tiles(self, width: int, height: int, limits: TileLimits) -> int:
        """Return the number of tiles of an image of this size, including the thumbnail."""
        columns, rows = tile_grid(
            width,
            height,
            min_tiles=limits.min_tiles,
            max_tiles=limits.max_tiles,
            tile_size=self.settings.tile_size,
        )
        return self.with_thumbnail(columns * rows)

    def with_thumbnail(self, num_tiles: int) -> int:
        """Return the number of tiles of a grid, including its thumbnail if it gets one."""
        return num_tiles + 1 if self.settings.use_thumbnail and num_tiles > 1 else num_tiles

    def tiles(self, pictures: Sequence[Picture]) -> np.ndarray:
        """Return the tiles of all images, [tiles, S, S, 3], uint8; empty without images."""
        size = self.settings.tile_size
        nothing = np.zeros((0, size, size, 3), dtype=np.uint8)
        return np.concatenate([nothing, *(picture.pieces for picture in pictures)])


def _picture(image: TiledImage) -> Picture:
    digests = tuple(sha256(tile.data).digest() for tile in image.tiles)
    return Picture(image.tiles, image.columns, image.rows, digests)
