"""A micro-batch: samples whose tiles may take their full or a quarter of their tokens, side by side.

Shapes: samples = samples of the micro-batch; tiles = all their tiles, sample after sample; N = tokens of the longest;
answers = their answer tokens, sample after sample.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from vico_eval.families.internvl.config import VicoInternVLConfig
from vico_eval.training.config import LowSharePer
from vico_eval.training.data.prepare import TrainingSample
from vico_eval.training.data.stream import Skipped


class Layout(NamedTuple):
    """The samples in tokens under one routing."""

    input_ids: Tensor
    """[samples, N], int64, padded on the right; packed: [1, all tokens], sample after sample."""

    sample: Tensor
    """[answers], int64: the sample of each answer token."""

    row: Tensor
    """[answers], int64: the row of `input_ids` that it stands in."""

    column: Tensor
    """[answers], int64: where in that row the token that predicts it stands."""

    lengths: list[int] | None = None
    """Packed: [samples], the tokens of each. Otherwise None."""


@dataclass(frozen=True, eq=False)
class MicroBatch:
    """Samples that are computed together."""

    samples: tuple[TrainingSample, ...]

    counts_in_loss: Tensor
    """[samples], bool: False for a stand-in for a sample that was skipped."""

    tiles: Tensor
    """[tiles, S, S, 3], uint8."""

    tile_sample: Tensor
    """[tiles], int64: the sample of each tile."""

    tile_image: Tensor
    """[tiles], int64: the image of each tile, numbered through the micro-batch."""

    is_packed: bool = False
    """Whether samples stand end to end in one row, instead of in a padded row each."""

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def keys(self) -> list[str]:
        """[samples]."""
        return [sample.key for sample in self.samples]

    def num_tiles(self) -> Tensor:
        """[samples], int64."""
        return torch.bincount(self.tile_sample, minlength=len(self))

    def lay_out(self, counts: Tensor) -> Layout:
        """The samples' tokens when tile i takes `counts[i]` visual ones; counts [tiles], int64.

        Padding stands on the right, where a causal decoder never sees it, so that no attention mask is needed.
        """
        parts = torch.split(counts.cpu(), self.num_tiles().tolist())
        expanded = [sample.expand(part.tolist()) for sample, part in zip(self.samples, parts, strict=True)]
        ids = [torch.as_tensor(one.input_ids) for one in expanded]
        are_answers = [torch.as_tensor(one.is_answer) for one in expanded]
        if self.is_packed:
            return _end_to_end(ids, are_answers)
        row, column = pad_sequence(are_answers, batch_first=True).nonzero(as_tuple=True)
        return Layout(pad_sequence(ids, batch_first=True), sample=row, row=row, column=column - 1)

    def num_tokens(self, compressed: Tensor, config: VicoInternVLConfig) -> int:
        """Tokens that the decoder works on under a routing, padding left out."""
        low = int(compressed.sum())
        visual = low * config.num_low_tokens + (len(compressed) - low) * config.num_high_tokens
        return visual + sum(len(sample.text_ids) for sample in self.samples)

    def to(self, device: torch.device) -> MicroBatch:
        """The same with its tiles on `device`; what decides where tokens go stays on the CPU."""
        return replace(self, tiles=self.tiles.to(device))


def _end_to_end(ids: Sequence[Tensor], are_answers: Sequence[Tensor]) -> Layout:
    """One row of all samples; ids and are_answers, [tokens of the sample] each."""
    lengths = [len(one) for one in ids]
    (places,) = torch.cat(list(are_answers)).nonzero(as_tuple=True)
    return Layout(
        input_ids=torch.cat(list(ids))[None],
        sample=torch.repeat_interleave(torch.tensor(lengths))[places],
        row=torch.zeros_like(places),
        column=places - 1,  # a sample begins with a question, so the token before an answer is its own
        lengths=lengths,
    )


def collate(
    samples: Sequence[TrainingSample | Skipped], blank: TrainingSample, *, is_packed: bool = False
) -> MicroBatch:
    """A micro-batch of samples, with `blank` in the places of skipped ones.

    Every process has to compute as many micro-batches as the others, which wait for it.
    """
    taken = tuple(blank if isinstance(sample, Skipped) else sample for sample in samples)
    images = [sample.tile_image for sample in taken]
    first = np.cumsum([0, *(len(np.unique(own)) for own in images)])
    return MicroBatch(
        samples=taken,
        counts_in_loss=torch.tensor([not isinstance(sample, Skipped) for sample in samples]),
        tiles=torch.from_numpy(np.concatenate([sample.tiles for sample in taken])),
        tile_sample=torch.repeat_interleave(torch.tensor([len(own) for own in images])),
        tile_image=torch.cat(
            [torch.from_numpy(np.asarray(own)) + start for own, start in zip(images, first, strict=False)]
        ),
        is_packed=is_packed,
    )


def seeded(*names: object) -> torch.Generator:
    """A generator of random numbers that depends on `names` alone, not on what was drawn before."""
    return torch.Generator().manual_seed(zlib.crc32("/".join(map(str, names)).encode(errors="surrogatepass")))


def random_share(
    batch: MicroBatch, seeds: Sequence[object], *, per: LowSharePer = "image", at_least: int = 0
) -> Tensor:
    """Stage 1's routing: of each image a share xi ~ U[0, 1] of its tiles, chosen at random, is low.

    With T tiles floor(xi * (T + 1)) are low, so that every number from 0 to T is equally likely. A sample's draws
    depend on its key and on `seeds`, so neither on its neighbours nor on the process that computes it.

    Args:
        batch: the samples.
        seeds: what the draws depend on besides.
        per: "image" draws a share for each image and one for all frames of a video, "sample" one for all tiles of a
            sample.
        at_least: low tiles of whatever draws a share.

    Returns:
        [tiles], bool.

    Source: ViCO (arXiv 2510.12793), equation 1: "in each image". A frame has one tile, so that frames with a share
        each would be low by half, whatever the video; the paper does not say what it does.
    """
    parts = [torch.zeros(0, dtype=torch.bool)]
    for sample in batch.samples:
        generator = seeded(*seeds, sample.key)
        for tiles in np.bincount(sample.tile_medium).tolist() if per == "image" else [len(sample.tiles)]:
            share = float(torch.rand((), generator=generator))
            num_low = min(max(int(share * (tiles + 1)), at_least), tiles)
            parts.append(torch.randperm(tiles, generator=generator) < num_low)
    return torch.cat(parts)


def fixed_share(batch: MicroBatch, share: float, seeds: Sequence[object]) -> Tensor:
    """The rounded `share` of each sample's tiles, chosen at random, is low: [tiles], bool."""
    parts = []
    for sample, tiles in zip(batch.samples, batch.num_tiles().tolist(), strict=True):
        parts.append(torch.randperm(tiles, generator=seeded(*seeds, sample.key)) < round(share * tiles))
    return torch.cat(parts)
