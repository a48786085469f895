"""Qwen-VL's sight: encodes images together and returns the visual tokens of each.

Shapes: n = visual tokens of a request; D = decoder width; W = input width of the merger per visual token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vico_eval.families.clock import seconds_on
from vico_eval.families.encoder_attention import score_source
from vico_eval.families.family import Look, Seen, Shown, Sight
from vico_eval.families.qwen_vl.encoder import PictureEncoder, SeenPicture
from vico_eval.methods.interface import (
    CONNECTOR_INPUTS,
    VisualTokens,
)

if TYPE_CHECKING:
    from vico_eval.families.qwen_vl.model import QwenVLModel


class SharedPictures:
    """The encoder's outputs for the last batch's images, shared by all looks."""

    def __init__(self, model: QwenVLModel, looks: Sequence[Look]) -> None:
        parts = [look.selection for look in looks if look.selection is not None]
        sources = [source for part in parts if (source := score_source(part)) is not None]
        self._model = model
        self._is_shared = len(looks) > 1
        self._encode = PictureEncoder(
            model, list(dict.fromkeys(sources)), keeps_merged=any(CONNECTOR_INPUTS in part.needs for part in parts)
        )
        self._keys: list[str] | None = None
        self._digests: list[tuple[bytes, ...]] | None = None
        self._seen: list[SeenPicture] = []
        self._seconds = 0.0

    def of(self, batch: Sequence[Shown]) -> tuple[list[SeenPicture], float]:
        """Return the encoder's outputs for a batch's images, and the time in seconds; 0 if the previous batch had the
        same images."""
        pictures: list[Any] = [picture for shown in batch for picture in shown.pictures]
        keys, digests = [shown.key for shown in batch], [picture.digests for picture in pictures]
        if digests != self._digests:
            self.forget()  # released before the encoder needs memory
            started = seconds_on(self._model.decoder_device)
            self._seen = self._encode(pictures)
            self._seconds = seconds_on(self._model.decoder_device) - started
            self._digests = digests
        elif keys != self._keys:
            self._seconds = 0.0
        self._keys = keys
        return self._seen, self._seconds

    def done(self, batch: Sequence[Shown]) -> None:
        """Record that a look has processed the batch, and release it if these images aren't needed any more."""
        # The only images of a batch are often asked about again by the next question.
        if not self._is_shared and len({shown.media for shown in batch if shown.media is not None}) > 1:
            self.forget()

    def forget(self) -> None:
        """Release memory."""
        self._digests, self._seen = None, []


class QwenSight(Sight):
    """The visual tokens of images for a look."""

    def __init__(self, model: QwenVLModel, look: Look, shared: SharedPictures) -> None:
        self._model, self._look, self._shared = model, look, shared
        self._source = score_source(look.selection)

    def encode(self, batch: Sequence[Shown]) -> float:
        """Encode the images."""
        return self._shared.of(batch)[1]

    def forget(self) -> None:
        """Release the last images' tokens."""
        self._shared.forget()

    def __call__(self, batch: Sequence[Shown]) -> list[Seen]:
        """The visual tokens of each request."""
        pictures = iter(self._shared.of(batch)[0])
        seen = [self._seen(shown, [next(pictures) for _ in shown.pictures]) for shown in batch]
        self._shared.done(batch)
        return seen

    def _seen(self, shown: Shown, pictures: Sequence[SeenPicture]) -> Seen:
        per_image = [len(picture.tokens) for picture in pictures]
        nothing = self._model.no_visual_tokens()
        tokens = torch.cat([picture.tokens for picture in pictures]) if pictures else nothing
        visual = None
        if self._look.selection is not None and len(tokens):
            visual = self._described(shown, pictures, tokens)
        return Seen(
            tokens=tokens,
            per_image=per_image,
            uncompressed=len(tokens),
            visual=visual,
            added=self._added(pictures, nothing),
        )

    def _added(self, pictures: Sequence[SeenPicture], nothing: Tensor) -> Tensor | None:
        """Return [features, n, D]; None if the model adds nothing."""
        count = len(getattr(self._model.visual, "deepstack_visual_indexes", ()))
        if not count:
            return None
        found = [picture.added for picture in pictures if picture.added is not None]
        return torch.cat(found, dim=1) if found else nothing.expand(count, *nothing.shape)

    def _described(self, shown: Shown, pictures: Sequence[SeenPicture], tokens: Tensor) -> VisualTokens:
        """Return the tokens with the inputs of a selection part, on their device."""
        grids = [
            torch.cartesian_prod(torch.arange(picture.rows), torch.arange(picture.columns))
            for picture in shown.pictures
        ]
        counts = torch.tensor([len(picture.tokens) for picture in pictures])
        image = torch.arange(len(pictures)).repeat_interleave(counts)
        values: dict[str, Tensor] = {}
        if self._source is not None:
            for name in ("scores", "keys"):
                parts = [getattr(picture.attention[self._source], name) for picture in pictures]
                values[name] = torch.cat(parts).to(tokens.device)
        return VisualTokens(
            key=shown.key,
            tokens=tokens,
            image=image.to(tokens.device),
            tile=torch.full_like(image, -1).to(tokens.device),
            grid_yx=torch.cat(grids).float().to(tokens.device),
            connect_mixed=self._mixer(pictures),
            **values,
        )

    def _mixer(self, pictures: Sequence[SeenPicture]) -> MixedInputs | None:
        merged = [picture.merged for picture in pictures if picture.merged is not None]
        return MixedInputs(self._model.visual.merger, torch.cat(merged)) if merged else None


@dataclass(frozen=True, eq=False)
class MixedInputs:
    """The merger's outputs for weighted sums of its inputs."""

    merger: Any
    inputs: Tensor
    """[n, W]."""

    def __call__(self, members: Tensor, weights: Tensor) -> Tensor:
        """Return [groups, mixed, D] for tokens [groups, members] and their weights [groups, mixed, members]."""
        rows = self.inputs[members.to(self.inputs.device)].float()
        mixed = (weights.to(rows.device) @ rows).to(self.inputs)
        # The merger normalises patches before it concatenates those of a token.
        patch_width = self.inputs.shape[1] // self._patches
        made: Tensor = self.merger(mixed.reshape(-1, patch_width))
        return made.view(*mixed.shape[:2], -1).to(weights)

    @property
    def _patches(self) -> int:
        norm = getattr(self.merger, "ln_q", None) or self.merger.norm
        return int(self.inputs.shape[1] // norm.weight.shape[0])
