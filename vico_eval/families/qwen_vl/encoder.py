"""Encoding of a batch's images and videos, each distinct one once.

Images are encoded together and videos together, as in transformers. Qwen2.5-VL's encoder reorders patches by window;
values of patches that are kept are put back into the order of the visual tokens.

Shapes: patches = those of a call, in the encoder's order; n = visual tokens of an image or video; M = those of a
call; D = decoder width; W = input width of the merger per visual token.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers.vision_utils import get_vision_window_index

from vico_eval.families.encoder_attention import PatchAttention
from vico_eval.families.portions import Portions
from vico_eval.families.qwen_vl.patch_attention import WatchedLayer
from vico_eval.methods.interface import ScoreSource

if TYPE_CHECKING:
    from vico_eval.families.qwen_vl.model import QwenVLModel
    from vico_eval.families.qwen_vl.pictures import QwenPicture

ENCODED_PATCHES = 2**16
"""Maximum number of patches per encoder call, which bounds its memory, not the batch. Reduced if they don't fit."""


class SeenPicture(NamedTuple):
    """The encoder's output for an image or video."""

    tokens: Tensor
    """[n, D]."""

    added: Tensor | None
    """[features, n, D]: DeepStack's features, added after the decoder's first layers; None without DeepStack."""

    attention: dict[ScoreSource, PatchAttention]
    """[n, ...], pooled over the patches of a visual token, by source."""

    merged: Tensor | None
    """[n, W]: the merger's input, if it is kept."""


class PictureEncoder:
    """A vision encoder for whole batches.

    Args:
        model: the model with the encoder.
        sources: also return the attention of these sources.
        keeps_merged: also return the merger's input.
    """

    def __init__(self, model: QwenVLModel, sources: Sequence[ScoreSource], *, keeps_merged: bool) -> None:
        self._model = model
        self._keeps_merged = keeps_merged
        self._portions = Portions(ENCODED_PATCHES, "patches")
        self._layers = {source: WatchedLayer(model.visual.blocks[source.layer].attn) for source in sources}

    def __call__(self, pictures: Sequence[QwenPicture]) -> list[SeenPicture]:
        """Return the encoder's output for each image or video, in order."""
        found: dict[bytes, SeenPicture] = {}
        for is_film in (False, True):
            distinct = {picture.digests[0]: picture for picture in pictures if picture.is_film == is_film}
            found |= zip(distinct, self._encode_all(list(distinct.values()), is_film), strict=True)
        return [found[picture.digests[0]] for picture in pictures]

    def _encode_all(self, pictures: Sequence[QwenPicture], is_film: bool) -> list[SeenPicture]:
        sizes = [picture.pieces.shape[1] for picture in pictures]
        portions = self._portions.encode(sizes, lambda span: self._encode(pictures[span], is_film))
        return [seen for portion in portions for seen in portion]

    def _encode(self, pictures: Sequence[QwenPicture], is_film: bool) -> list[SeenPicture]:
        visual: Any = self._model.visual
        merge = visual.spatial_merge_size
        device: torch.device = next(visual.parameters()).device
        grids = torch.tensor([[1, picture.rows * merge, picture.columns * merge] for picture in pictures])
        patches = torch.from_numpy(np.concatenate([picture.pieces[0] for picture in pictures])).to(device)
        merged: list[Tensor] = []
        with ExitStack() as watched:
            for layer in self._layers.values():
                watched.enter_context(layer.watching())
            if self._keeps_merged:
                hook = visual.merger.register_forward_pre_hook(lambda _, inputs: merged.append(inputs[0]))
                watched.callback(hook.remove)
            pixels = self._normalised(patches, is_film).to(visual.dtype)
            made = visual(pixels, grid_thw=grids.to(device), return_dict=True)
        order = self._order(grids)
        attention = {source: self._pooled(layer.taken(), order) for source, layer in self._layers.items()}
        features = getattr(made, "deepstack_features", None)
        added = torch.stack(list(features)) if features else None
        inputs = merged[0].reshape(-1, merge**2 * merged[0].shape[-1]) if merged else None
        if inputs is not None and order is not None:
            inputs = inputs[order.to(inputs.device)]
        sizes = [picture.num_tokens for picture in pictures]
        return [
            SeenPicture(
                tokens=tokens,
                added=None if added is None else added[:, span],
                attention={
                    source: PatchAttention(found.scores[span], found.keys[span]) for source, found in attention.items()
                },
                merged=None if inputs is None else inputs[span],
            )
            for tokens, span in zip(made.pooler_output.split(sizes), _spans(sizes), strict=True)
        ]

    def _normalised(self, patches: Tensor, is_film: bool) -> Tensor:
        """Normalise bytes to [patches, values], float32, with the processor's own arithmetic."""
        processor = self._model.processor.video_processor if is_film else self._model.processor.image_processor
        side = processor.patch_size
        channels = len(processor.image_mean)
        in_channels = patches.reshape(len(patches), channels, -1, side)
        normalised: Tensor = processor.rescale_and_normalize(
            in_channels,
            processor.do_rescale,
            processor.rescale_factor,
            processor.do_normalize,
            # Tuples, because transformers caches results by them.
            tuple(processor.image_mean),
            tuple(processor.image_std),
        )
        return normalised.reshape(len(patches), -1)

    def _order(self, grids: Tensor) -> Tensor | None:
        """Return the position of each visual token in the encoder's order, [M], int64; None if the order is the
        same."""
        vision = self._model.visual.config
        if not hasattr(vision, "window_size"):
            return None
        windows, _ = get_vision_window_index(grids, vision.spatial_merge_size, vision.window_size, vision.patch_size)
        return windows.argsort()

    def _pooled(self, found: PatchAttention, order: Tensor | None) -> PatchAttention:
        """Return [M, ...], the mean over the patches of each visual token."""
        unit = self._model.visual.spatial_merge_size**2
        scores = found.scores.view(-1, unit).mean(dim=1)
        keys = found.keys.view(-1, unit, found.keys.shape[-1]).mean(dim=1)
        if order is None:
            return PatchAttention(scores, keys)
        order = order.to(scores.device)
        return PatchAttention(scores[order], keys[order])


def _spans(sizes: Sequence[int]) -> list[slice]:
    ends = np.cumsum(sizes).tolist()
    return [slice(end - size, end) for size, end in zip(sizes, ends, strict=True)]
