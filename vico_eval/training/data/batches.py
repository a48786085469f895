"""Micro-batches of samples in which each tile takes either all or a quarter of its visual tokens.

Shapes: samples = samples of the micro-batch; tiles = all their tiles, in the order of the samples; N = tokens of the
longest sample; answers = all their answer tokens, in the order of the samples.
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
    """The token layout of the samples under one routing."""

    input_ids: Tensor
    """[samples, N], int64, padded on the right; if packed, [1, all tokens] in the order of the samples."""

    sample: Tensor
    """[answers], int64: the sample of each answer token."""

    row: Tensor
    """[answers], int64: the row of each answer token in `input_ids`."""

    column: Tensor
    """[answers], int64: the column in that row of the token that predicts the answer token."""

    lengths: list[int] | None = None
    """[samples], the length of each in tokens, if packed; otherwise None."""


@dataclass(frozen=True, eq=False)
class MicroBatch:
    """Samples computed together."""

    samples: tuple[TrainingSample, ...]

    counts_in_loss: Tensor
    """[samples], bool: False for the placeholder of a skipped sample."""

    tiles: Tensor
    """[tiles, S, S, 3], uint8."""

    tile_sample: Tensor
    """[tiles], int64: the sample of each tile."""

    tile_image: Tensor
    """[tiles], int64: the image of each tile, numbered over the whole micro-batch."""

    is_packed: bool = False
    """Whether samples are packed end to end into one row, instead of one padded row per sample."""

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def keys(self) -> list[str]:
        """[samples], the sample keys."""
        return [sample.key for sample in self.samples]

    def num_tiles(self) -> Tensor:
        """Return the number of tiles of each sample, [samples], int64."""
        return torch.bincount(self.tile_sample, minlength=len(self))

    def lay_out(self, counts: Tensor) -> Layout:
        """Lay out the samples' tokens, with `counts[i]` visual tokens for tile i; counts [tiles], int64.

        Padding is on the right, where causal attention never reaches it, so that no attention mask is needed.
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
        """Return the number of tokens that enter the decoder under a routing, without padding."""
        low = int(compressed.sum())
        visual = low * config.num_low_tokens + (len(compressed) - low) * config.num_high_tokens
        return visual + sum(len(sample.text_ids) for sample in self.samples)

    def to(self, device: torch.device) -> MicroBatch:
        """Return the micro-batch with its tiles on `device`; the layout data stays on the CPU."""
        return replace(self, tiles=self.tiles.to(device))


def _end_to_end(ids: Sequence[Tensor], are_answers: Sequence[Tensor]) -> Layout:
    """Pack all samples into one row; ids and are_answers hold one [tokens of the sample] tensor per sample."""
    lengths = [len(one) for one in ids]
    (places,) = torch.cat(list(are_answers)).nonzero(as_tuple=True)
    return Layout(
        input_ids=torch.cat(list(ids))[None],
        sample=torch.repeat_interleave(torch.tensor(lengths))[places],
        row=torch.zeros_like(places),
        column=places - 1,  # a sample begins with a question, so the token before an answer belongs to it
        lengths=lengths,
    )


def collate(
    samples: Sequence[TrainingSample | Skipped], blank: TrainingSample, *, is_packed: bool = False
) -> MicroBatch:
    """Build a micro-batch, with `blank` in place of each skipped sample.

    Skipped samples are replaced because every process must compute the same number of micro-batches.
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
    """Return a random generator that depends only on `names`, not on earlier draws."""
    return torch.Generator().manual_seed(zlib.crc32("/".join(map(str, names)).encode(errors="surrogatepass")))


def random_share(
    batch: MicroBatch, seeds: Sequence[object], *, per: LowSharePer = "image", at_least: int = 0
) -> Tensor:
    """Draw stage 1's routing: a share xi ~ U[0, 1] of each image's tiles, chosen at random, is low.

    Of T tiles, floor(xi * (T + 1)) are low, so that every number from 0 to T is equally likely. A sample's draws depend
    only on its key and on `seeds`, not on its neighbours or on the process that computes it.

    Args:
        batch: the samples.
        seeds: the seeds of the draws, besides the sample keys.
        per: "image" draws a share for each image and one for all frames of a video, "sample" one for all tiles of a
            sample.
        at_least: the minimum number of low tiles for each share that is drawn.

    Returns:
        [tiles], bool.

    Source: ViCO (arXiv 2510.12793), equation 1: "in each image". A frame has one tile, so with one share per frame
        about half of every video's frames would be low; the paper does not specify this case.
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
    """Draw a routing with a fixed `share` (rounded) of each sample's tiles low, chosen at random: [tiles], bool."""
    parts = []
    for sample, tiles in zip(batch.samples, batch.num_tiles().tolist(), strict=True):
        parts.append(torch.randperm(tiles, generator=seeded(*seeds, sample.key)) < round(share * tiles))
    return torch.cat(parts)
