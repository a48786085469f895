"""What a request cost, in tokens. Every ratio that is reported comes from these counts, never from a setting."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class TokenAccount:
    """Counts of one request."""

    tiles: int
    """Tiles of all its images, thumbnails and frames included."""

    compressed_tiles: int
    """Those that went through the low connector."""

    visual_tokens: int
    """Visual tokens at the decoder's input."""

    visual_tokens_uncompressed: int
    """What they would be with every tile at full length."""

    visual_tokens_per_layer: tuple[int, ...]
    """Visual tokens that each decoder layer works on in prefill."""

    text_tokens: int
    """The rest of the prompt, chat markup included."""

    generated_tokens: int
    """End of text included."""

    p_compress: tuple[float, ...] | None = None
    """The router's score of every tile, where there is one."""

    media: str | None = None
    """Digest of the tiles, the same for requests about the same pictures; None where there is no tile."""

    grids: tuple[tuple[int, int, int], ...] | None = None
    """Columns, rows and tiles of each picture or frame, in the order of the tiles. One tile more than columns x rows is
    a thumbnail, the picture's last tile."""

    compressed: tuple[int, ...] | None = None
    """Places of the compressed tiles, ascending."""

    def __post_init__(self) -> None:
        # JSON has no word for NaN, and nothing can be concluded from it.
        if self.p_compress is not None and not all(0 <= score <= 1 for score in self.p_compress):
            raise ValueError(f"p_compress is {self.p_compress}; expected probabilities in [0, 1].")

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, as they are written to disk."""
        values = asdict(self)
        values["visual_tokens_per_layer"] = list(self.visual_tokens_per_layer)
        for name in ("p_compress", "compressed"):
            values[name] = None if values[name] is None else list(values[name])
        values["grids"] = None if self.grids is None else [list(grid) for grid in self.grids]
        return values
