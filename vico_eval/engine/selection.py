"""A method's selection between connector and decoder: which visual tokens of each request go on.

Shapes: n = visual tokens of a request that were seen, kept = those that go on; D = decoder width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vico_eval.families.finite import refuse_not_finite
from vico_eval.methods.interface import Selected, SelectionPart, VisualTokens
from vico_eval.stages import METHOD, stage


class Entering(NamedTuple):
    """The visual tokens of one request that enter the decoder."""

    tokens: Tensor
    """[kept, D]."""

    per_image: list[int]
    """[pictures]: how many of them are each one's."""

    num_merged: int = 0


def select(part: SelectionPart, requests: Sequence[VisualTokens], num_images: Sequence[int]) -> list[Entering]:
    """What the part lets in of each request.

    Args:
        part: of the method.
        requests: those with visual tokens.
        num_images: [requests], pictures of each.

    Raises:
        RuntimeError: the part gave back something else than it was asked for.
        FloatingPointError: it would choose by values, or made tokens, that are NaN or infinite; names the documents.
    """
    _refuse_not_finite(requests)
    with stage(METHOD):
        chosen = part.select(requests)
    if len(chosen) != len(requests):
        raise RuntimeError(f"a part was asked to select for {len(requests)} requests and did for {len(chosen)}")
    return [_entering(*each) for each in zip(requests, chosen, num_images, strict=True)]


LOOKED_AT = {
    "scores": "vision encoder's scores",
    "keys": "vision encoder's keys",
    "tokens": "visual tokens",
    "question_embeddings": "embeddings of the question",
    "p_compress": "router's scores",
}
"""What parts choose by, and how a message names it."""


def _refuse_not_finite(requests: Sequence[VisualTokens]) -> None:
    """Raises FloatingPointError where a part would choose by NaN or infinite values."""
    for name, what in LOOKED_AT.items():
        given = [(visual.key, values) for visual in requests if (values := getattr(visual, name)) is not None]
        if given:
            is_finite = torch.stack([values.isfinite().all().to(given[0][1].device) for _, values in given]).tolist()
            refuse_not_finite(what, (key for (key, _), fine in zip(given, is_finite, strict=True) if not fine))


def _entering(visual: VisualTokens, chosen: Selected | None, num_images: int) -> Entering:
    if chosen is None:
        return Entering(visual.tokens, visual.image.bincount(minlength=num_images).tolist())
    is_merged = _checked(visual, chosen)
    keep = chosen.keep.to(visual.tokens.device)
    tokens = visual.tokens[keep]
    num_merged = 0
    if chosen.merged is not None:
        num_merged = len(chosen.merged)
        tokens[is_merged] = chosen.merged.to(tokens)
    return Entering(tokens, visual.image[keep].bincount(minlength=num_images).tolist(), num_merged)


def _checked(visual: VisualTokens, chosen: Selected) -> Tensor:
    """Which of the chosen tokens are merged, [kept], bool, on the tokens' device."""
    device, num_tokens = visual.tokens.device, len(visual.tokens)
    keep = chosen.keep.to(device)
    is_merged = torch.zeros_like(keep, dtype=torch.bool) if chosen.is_merged is None else chosen.is_merged.to(device)
    if keep.numel() and not (int(keep.min()) >= 0 and int(keep.max()) < num_tokens):
        raise RuntimeError(f"a part chose tokens of {visual.key} outside its {num_tokens}")
    if len(keep.unique()) < len(keep):
        raise RuntimeError(f"a part chose a token of {visual.key} twice")
    if bool((visual.image[keep].diff() < 0).any()) or bool((keep[~is_merged].diff() < 0).any()):
        raise RuntimeError(f"a part reordered the visual tokens of {visual.key}; those that stay keep their order")
    expected, made = int(is_merged.sum()), 0 if chosen.merged is None else len(chosen.merged)
    if made != expected:
        raise RuntimeError(f"a part returned {made} merged tokens of {visual.key} and marked {expected}")
    if chosen.merged is not None and not bool(chosen.merged.isfinite().all()):
        refuse_not_finite("merged tokens", [visual.key])
    return is_merged
