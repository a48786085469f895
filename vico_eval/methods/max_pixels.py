"""Max pixels: each image is reduced to fewer pixels and so becomes fewer visual tokens.

Place:   resolution.
Models:  that resize images (Qwen-VL).
Source:  none; a control that every method of saving tokens has to beat at an equal number of tokens. It is for models
         that resize images to whole visual tokens (Qwen-VL) what `downsample` is for models with tiles.
Differs: video frames keep their size.
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
    """Token budget of an image."""

    pixel_keep_ratio: float | None = None
    """Target share of an image's visual tokens, in (0, 1]; 0.5 unless ratio_from is given. The nearest number that
    whole rows and columns allow is used, at least one; the token account records the share reached."""

    ratio_from: str | None = None
    """Folder of an earlier run, for example of ViCO, whose measured share of visual tokens becomes pixel_keep_ratio."""

    def __post_init__(self) -> None:
        if not 0 < self.keep_ratio <= 1:
            raise ConfigError(
                f"max_pixels got pixel_keep_ratio={self.pixel_keep_ratio}; expected the share of an image's visual "
                "tokens that stays, in (0, 1]."
            )

    @property
    def keep_ratio(self) -> float:
        """The share in effect."""
        return DEFAULT_KEEP_RATIO if self.pixel_keep_ratio is None else self.pixel_keep_ratio

    def resolved(self) -> Self:
        """The configuration with the share that the earlier run measured."""
        if self.ratio_from is None:
            return self
        share = measured_share(self.ratio_from, "pixel_keep_ratio", self.pixel_keep_ratio)
        return replace(self, pixel_keep_ratio=share)


class MaxPixels(PixelPart):
    """Lowers the limit on an image's pixels until its visual tokens are nearest to the target share."""

    Config = MaxPixelsConfig
    config: MaxPixelsConfig

    def max_pixels(self, image: ImagePixels) -> int:
        """The limit in pixels whose number of visual tokens is nearest to the target."""
        if self.config.keep_ratio == 1:
            return image.max_pixels
        budget = self.config.keep_ratio * image.num_tokens(image.max_pixels)
        of_token = image.token_side**2
        # Rows and columns are rounded down to fit a limit, so a limit above the budget may come nearer to it.
        counts = range(max(1, int(budget)), max(1, int(budget * 1.5)) + 2)
        limits = [min(count * of_token, image.max_pixels) for count in counts]
        return min(limits, key=lambda limit: abs(image.num_tokens(limit) - budget))
