"""Connectors, which turn a tile's vision tokens into visual tokens of the decoder.

Source: InternVL's `mlp1` (high) and ViCO's `mlp2` (low), as in the modelling code released with InternVL3.5-Flash.

Shapes: tiles = tiles in the call; h = w = vision tokens along a tile's side; C = vision width; D = decoder width.
"""

from __future__ import annotations

from torch import Tensor, nn

LOW_DROPOUT = 0.1


def pixel_shuffle(vit_tokens: Tensor, block: int, version: str = "v2") -> Tensor:
    """Stack the channels of every `block` x `block` square of vision tokens.

    Args:
        vit_tokens: [tiles, 1 + h*w, C], class token first, which is dropped.
        block: side of a square in vision tokens (2 for the high connector, 4 for the low one).
        version: "v2" keeps rows as rows; "v1", of early checkpoints, returns the grid transposed.

    Returns:
        [tiles, (h/block) * (w/block), block*block*C], row by row.
    """
    tiles, length, channels = vit_tokens.shape
    side = round((length - 1) ** 0.5)
    grid = side // block
    squares = vit_tokens[:, 1:].reshape(tiles, grid, block, grid, block, channels)
    order = (0, 1, 3, 2, 4, 5) if version == "v2" else (0, 3, 1, 2, 4, 5)
    return squares.permute(*order).reshape(tiles, grid * grid, block * block * channels)


class HighConnector(nn.Module):
    """256 visual tokens of a 448 px tile: pixel shuffle by 2, then a two-layer MLP."""

    def __init__(self, vision_width: int, decoder_width: int, block: int = 2, version: str = "v2") -> None:
        super().__init__()
        self.block = block
        self.version = version
        width = block * block * vision_width
        self.norm = nn.LayerNorm(width)
        self.linear_1 = nn.Linear(width, decoder_width)
        self.act = nn.GELU()
        self.linear_2 = nn.Linear(decoder_width, decoder_width)

    def forward(self, vit_tokens: Tensor) -> Tensor:
        """[tiles, 1 + h*w, C] -> [tiles, (h/block) * (w/block), D]."""
        return self.project(pixel_shuffle(vit_tokens, self.block, self.version))

    def project(self, squares: Tensor) -> Tensor:
        """[..., block*block*C], as stacked by `pixel_shuffle` -> [..., D]."""
        return self.linear_2(self.act(self.linear_1(self.norm(squares))))  # type: ignore[no-any-return]


class LowConnector(nn.Module):
    """64 visual tokens of a 448 px tile: pixel shuffle by 4, then a three-layer MLP with dropout in training."""

    def __init__(self, vision_width: int, decoder_width: int, block: int = 4, version: str = "v2") -> None:
        super().__init__()
        self.block = block
        self.version = version
        width = block * block * vision_width
        self.norm = nn.LayerNorm(width)
        self.linear_1 = nn.Linear(width, 2 * decoder_width)
        self.linear_2 = nn.Linear(2 * decoder_width, 2 * decoder_width)
        self.linear_3 = nn.Linear(2 * decoder_width, decoder_width)
        self.act = nn.GELU()
        self.dropout = nn.Dropout(LOW_DROPOUT)

    def forward(self, vit_tokens: Tensor) -> Tensor:
        """[tiles, 1 + h*w, C] -> [tiles, (h/block) * (w/block), D]."""
        return self.project(pixel_shuffle(vit_tokens, self.block, self.version))

    def project(self, squares: Tensor) -> Tensor:
        """[..., block*block*C], as stacked by `pixel_shuffle` -> [..., D]."""
        hidden = self.dropout(self.act(self.linear_1(self.norm(squares))))
        hidden = self.dropout(self.act(self.linear_2(hidden)))
        return self.linear_3(hidden)  # type: ignore[no-any-return]
