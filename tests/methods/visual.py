"""Visual tokens of a request, for tests of selection methods."""

import torch

from vico_eval.methods.interface import VisualTokens


def visual_tokens(tokens, *, tile, image=None, key="docvqa/test/7", side=4, **values):
    """Tokens [n, D] of tiles [n]; places row by row in tiles of `side` tokens a side."""
    place = torch.arange(len(tokens)) % side**2
    return VisualTokens(
        key=key,
        tokens=tokens,
        image=torch.zeros(len(tokens), dtype=torch.int64) if image is None else torch.tensor(image),
        tile=torch.tensor(tile),
        grid_yx=torch.stack([place // side, place % side], dim=1).float(),
        **values,
    )
