"""Selection between connector and decoder: the visual tokens of each request that enter the decoder.

Shapes: n = visual tokens of a request before selection; kept = after it; D = decoder width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vico_eval.families.finite import refuse_not_finite
from vico_eval.methods.interface import Selected, SelectionPart, VisualTokens
from vico_eval.methods.shared.copies import CPU, moved
from vico_eval.stages import METHOD, stage


class Entering(NamedTuple):
    """The visual tokens of one request that enter the decoder."""

    tokens: Tensor
    """[kept, D]."""

    per_image: list[int]
    """[pictures], number of tokens of each image or tile."""

    num_merged: int = 0

    keep: Tensor | None = None
    """[kept], int64, on the CPU: index of the original token that each one is or represents; None if all are kept."""


def select(part: SelectionPart, requests: Sequence[VisualTokens], num_images: Sequence[int]) -> list[Entering]:
    """Let a method's part select the visual tokens of each request.

    Args:
        part: the method's selection part.
        requests: requests with visual tokens.
        num_images: [requests], number of images of each request.

    Raises:
        RuntimeError: the part returned an invalid selection.
        FloatingPointError: the values that it would choose by, or the tokens that it made, are NaN or infinite; the
            message names the documents.
    """
    _refuse_not_finite(requests)
    with stage(METHOD):
        chosen = part.select(requests)
    if len(chosen) != len(requests):
        raise RuntimeError(f"a part was asked to select for {len(requests)} requests and did for {len(chosen)}")
    return _entering(requests, chosen, num_images)


LOOKED_AT = {
    "scores": "vision encoder's scores",
    "keys": "vision encoder's keys",
    "tokens": "visual tokens",
    "question_embeddings": "embeddings of the question",
    "p_compress": "router's scores",
}
"""The values that parts choose by, and their names in messages."""


def _refuse_not_finite(requests: Sequence[VisualTokens]) -> None:
    """Raise FloatingPointError if a part would choose by NaN or infinite values."""
    given = [
        (what, visual.key, values)
        for name, what in LOOKED_AT.items()
        for visual in requests
        if (values := getattr(visual, name)) is not None
    ]
    (is_finite,) = moved(CPU, [values.isfinite().all() for *_, values in given])
    for what in LOOKED_AT.values():
        of_it = ((key, fine) for (named, key, _), fine in zip(given, is_finite, strict=True) if named == what)
        refuse_not_finite(what, (key for key, fine in of_it if not fine))


class _Choice(NamedTuple):
    """A part's choice for one request, copied to the CPU."""

    keep: Tensor
    """[kept], int64."""

    is_merged: Tensor
    """[kept], bool."""

    is_finite: Tensor
    """[], bool: whether the merged tokens are finite."""

    @classmethod
    def of(cls, chosen: Selected) -> _Choice:
        marks = torch.zeros(len(chosen.keep), dtype=torch.bool) if chosen.is_merged is None else chosen.is_merged
        made = torch.zeros(0) if chosen.merged is None else chosen.merged
        return cls(chosen.keep, marks, made.isfinite().all())


def _entering(
    requests: Sequence[VisualTokens], chosen: Sequence[Selected | None], num_images: Sequence[int]
) -> list[Entering]:
    """Gather the chosen tokens. Choices are copied to the CPU and checked there, with one synchronisation for all
    requests."""
    given = {number: each for number, each in enumerate(chosen) if each is not None}
    images, *read = moved(CPU, [visual.image for visual in requests], *map(_Choice.of, given.values()))
    choices = [_Choice(*values) for values in read]
    # By indices instead of a mask, whose sum would need a synchronisation.
    merged_at = [choice.is_merged.nonzero()[:, 0] for choice in choices]
    there = moved(requests[0].tokens.device, [each.keep for each in given.values()], merged_at)
    entering = [
        Entering(visual.tokens, image.bincount(minlength=number).tolist())
        for visual, image, number in zip(requests, images, num_images, strict=True)
    ]
    for (number, each), choice, keep, places in zip(given.items(), choices, *there, strict=True):
        visual, image = requests[number], images[number]
        _check(visual, image, each, choice)
        tokens = visual.tokens[keep]
        if each.merged is not None:
            tokens[places] = each.merged.to(tokens)
        per_image = image[choice.keep].bincount(minlength=num_images[number]).tolist()
        entering[number] = Entering(tokens, per_image, 0 if each.merged is None else len(each.merged), choice.keep)
    return entering


def _check(visual: VisualTokens, image: Tensor, chosen: Selected, read: _Choice) -> None:
    """Raise RuntimeError or FloatingPointError if a request's choice is invalid."""
    keep, is_merged, num_tokens = read.keep, read.is_merged, len(visual.tokens)
    if keep.numel() and not (int(keep.min()) >= 0 and int(keep.max()) < num_tokens):
        raise RuntimeError(f"a part chose tokens of {visual.key} outside its {num_tokens}")
    if len(keep.unique()) < len(keep):
        raise RuntimeError(f"a part chose a token of {visual.key} twice")
    if bool((image[keep].diff() < 0).any()) or bool((keep[~is_merged].diff() < 0).any()):
        raise RuntimeError(f"a part reordered the visual tokens of {visual.key}; kept tokens must stay in order")
    expected, made = int(is_merged.sum()), 0 if chosen.merged is None else len(chosen.merged)
    if made != expected:
        raise RuntimeError(f"a part returned {made} merged tokens of {visual.key} and marked {expected}")
    if not bool(read.is_finite):
        refuse_not_finite("merged tokens", [visual.key])
