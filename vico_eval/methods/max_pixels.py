"""Max pixels: an image comes with fewer pixels, and so becomes fewer visual tokens.

Place:   resolution.
Models:  with a limit on pixels, such as Qwen-VL.
Source:  none; on models that resize images to whole visual tokens (Qwen-VL) what `downsample` is on those with tiles:
         the control that every way of saving tokens has to beat at an equal number of tokens.
Differs: frames of videos keep their size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vico_eval.errors import ConfigError
from vico_eval.methods.interface import ImagePixels, PixelPart
from vico_eval.methods.shared.earlier_run import measured_share

if TYPE_CHECKING:
    from typing_extensions import Self

DEFAULT_KEEP_RATIO = 0.5


@dataclass(frozen=True, kw_only=True)
class MaxPixelsConfig:
    """How many visual tokens an image may take."""

    pixel_keep_ratio: float | None = None
    """Share of the visual tokens that an image would take, in (0, 1]; 0.5 without ratio_from. Whole rows and columns
    come as near as they can, at least one token: the token account says what was reached."""

    ratio_from: str | None = None
    """Folder of an earlier run whose measured share of visual tokens becomes pixel_keep_ratio."""

    def __post_init__(self) -> None:
        if not 0 < self.keep_ratio <= 1:
            raise ConfigError(
                f"max_pixels got pixel_keep_ratio={self.pixel_keep_ratio}; expected the share of an image's visual "
                "tokens that stays, in (0, 1]."
            )

    @property
    def keep_ratio(self) -> float:
        """The share that counts."""
        return DEFAULT_KEEP_RATIO if self.pixel_keep_ratio is None else self.pixel_keep_ratio

    def resolved(self) -> Self:
        """With the share that the earlier run measured."""
        if self.ratio_from is None:
            return self
        share = measured_share(self.ratio_from, "pixel_keep_ratio", self.pixel_keep_ratio)
        return replace(self, pixel_keep_ratio=share)


class MaxPixels(PixelPart):
    """Lowers the limit on an image's pixels until its visual tokens are the wanted share."""

    Config = MaxPixelsConfig
    config: MaxPixelsConfig

    def max_pixels(self, image: ImagePixels) -> int:
        """As many as come nearest to the share."""
        if self.config.keep_ratio == 1:
            return image.max_pixels
        budget = self.config.keep_ratio * image.num_tokens(image.max_pixels)
        of_token = image.token_side**2
        # Rows and columns are rounded down to a limit, so a larger one than the budget's may come nearer.
        counts = range(max(1, int(budget)), max(1, int(budget * 1.5)) + 2)
        limits = [min(count * of_token, image.max_pixels) for count in counts]
        return min(limits, key=lambda limit: abs(image.num_tokens(limit) - budget))
