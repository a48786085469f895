"""How InternVL writes prompts and cuts pictures, by a checkpoint's configuration."""

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
    """What a checkpoint's configuration says of prompts and tiles."""

    tile_size: int = 448
    """Side of a tile in px."""

    min_tiles: int = 1

    max_tiles: int = 12
    """Tiles an image may have, thumbnail not counted, where nobody names a limit."""

    use_thumbnail: bool = True

    num_frames: int = 64
    """Frames of a video, one tile each, where nobody names a number."""

    template: str = "internvl2_5"
    """Name of the conversation template."""

    system_message: str | None = None
    """The checkpoint's; None takes the template's own."""

    def __post_init__(self) -> None:
        for name in ("tile_size", "min_tiles", "max_tiles", "num_frames"):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= MOST:
                raise ConfigError(f"Got {name}={value!r}; expected a whole number from 1 to {MOST}.")
        get_template(self.template)

    @classmethod
    def of(cls, config: VicoInternVLConfig) -> InternVLSettings:
        """A checkpoint's."""
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
        """The conversation in the checkpoint's template; without a system message, with the template's own."""
        return self.template.render(turns, system)

    def slot_ids(self, vocabulary: Mapping[str, int]) -> Slot:
        """`<img></img>`, between which visual tokens are put."""
        if missing := [token for token in (IMAGE_START, IMAGE_END, IMAGE_TOKEN) if token not in vocabulary]:
            raise ConfigError(
                f"The tokenizer has no token {', '.join(missing)}; expected the tokenizer of an InternVL checkpoint."
            )
        start, end = int(vocabulary[IMAGE_START]), int(vocabulary[IMAGE_END])
        return Slot(ids=(start, end), before=(start,), after=(end,))

    def image(self, number: int | None, *, is_inline: bool = False) -> Stand:
        """A line of its own, `Image-1: ` before it where it is numbered."""
        if is_inline:
            return Stand(self.slot)
        return Stand(f"{self.slot}\n") if number is None else Stand(f"Image-{number}: {self.slot}\n", begins_line=True)

    def limits(self, asked: SizeLimits, num_images: int) -> TileLimits:
        """The caller's limit or the checkpoint's; images that share a total get total // images, at least 1."""
        most = asked.max_tiles or self.settings.max_tiles
        if asked.total_max_tiles is not None and num_images:
            most = max(1, min(most, asked.total_max_tiles // num_images))
        return TileLimits(min(self.settings.min_tiles, most), most)

    def cut(
        self, image: Image.Image, limits: TileLimits, resolution: ResolutionPart | PixelPart | None = None
    ) -> Picture:
        """The limits' own grid, else the one nearest to the image's shape within them; a part may set them anew. Then a
        thumbnail."""
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
        """One tile."""
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
        """Spaced evenly, as many as the checkpoint says where nobody else does."""
        return frame_indices(total, num_frames or self.num_frames, first=first, last=last)

    def show(self, clip: Clip) -> Strip:
        """A tile each, on lines that number them."""
        pictures = [self.cut_frame(frame) for frame in clip.frames]
        text = "".join(f"Frame{number}: {self.slot}\n" for number in range(1, len(pictures) + 1))
        return Strip(pictures, Stand(text, begins_line=True))

    def num_tiles(self, width: int, height: int, limits: TileLimits) -> int:
        """Tiles that an image of so many px becomes, thumbnail included."""
        columns, rows = tile_grid(
            width,
            height,
            min_tiles=limits.min_tiles,
            max_tiles=limits.max_tiles,
            tile_size=self.settings.tile_size,
        )
        return self.with_thumbnail(columns * rows)

    def with_thumbnail(self, num_tiles: int) -> int:
        """Tiles of a grid of so many, and the thumbnail where it gets one."""
        return num_tiles + 1 if self.settings.use_thumbnail and num_tiles > 1 else num_tiles

    def tiles(self, pictures: Sequence[Picture]) -> np.ndarray:
        """Those of all pictures, [tiles, S, S, 3], uint8; none without a picture."""
        size = self.settings.tile_size
        nothing = np.zeros((0, size, size, 3), dtype=np.uint8)
        return np.concatenate([nothing, *(picture.pieces for picture in pictures)])


def _picture(image: TiledImage) -> Picture:
    digests = tuple(sha256(tile.data).digest() for tile in image.tiles)
    return Picture(image.tiles, image.columns, image.rows, digests)
