"""A loaded Qwen-VL model.

Shapes: batch = prompts, left-padded; N = prompt tokens; patches = those of all images in a call; n = visual tokens of
an image; D = decoder width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vico_eval.families.family import FamilyModel, Look, Sight
from vico_eval.families.qwen_vl.decoder import MRopeAttention, QwenDecoder
from vico_eval.families.qwen_vl.facts import facts_of
from vico_eval.families.qwen_vl.pictures import QwenPicture
from vico_eval.families.qwen_vl.sight import QwenSight, SharedPictures
from vico_eval.methods.interface import ModelFacts

IMAGE, FILM = 1, 2
"""transformers' token types; 0 is text."""


class QwenVLModel(FamilyModel, nn.Module):
    """transformers' whole model, split into an encoder and a decoder.

    Args:
        whole: `Qwen2_5_VLForConditionalGeneration`, `Qwen3VLForConditionalGeneration` or
            `Qwen3VLMoeForConditionalGeneration`.
        processor: the checkpoint's processor.
        checkpoint: the name given by the user.
        image_token_id: the token that stands for a visual token.
    """

    decoder_attention = MRopeAttention()
    counts_positions = False
    ends_early = False  # so that logits equal transformers' to the bit

    def __init__(self, whole: Any, processor: Any, checkpoint: str, image_token_id: int) -> None:
        super().__init__()
        self.whole = whole
        self.language_model = QwenDecoder(whole.model.language_model, whole.lm_head)
        self.processor = processor
        self._checkpoint = checkpoint
        self._image_token_id = image_token_id
        self.eval()

    @property
    def facts(self) -> ModelFacts:
        """The model's facts for parts of methods."""
        return facts_of(self.whole.config, self._checkpoint, self.processor.image_processor)

    @property
    def image_token_id(self) -> int:
        """The id of `<|image_pad|>`, also for video frames."""
        return self._image_token_id

    @property
    def dtype(self) -> torch.dtype:
        """The compute dtype."""
        return self.whole.dtype  # type: ignore[no-any-return]

    @property
    def visual(self) -> Any:
        """The vision encoder with its merger."""
        return self.whole.model.visual

    def sights(self, looks: Sequence[Look]) -> list[Sight]:
        """Return the sights, which encode images once for all looks."""
        shared = SharedPictures(self, looks)
        return [QwenSight(self, look, shared) for look in looks]

    def positions(self, input_ids: Sequence[int], pictures: Sequence[QwenPicture]) -> Tensor:
        """Return [3, N]: time, row and column of visual tokens, and the same number three times for text, as in
        transformers.

        Args:
            input_ids: [N], of the whole prompt.
            pictures: the prompt's images.
        """
        ids = torch.tensor(input_ids)
        kinds = torch.zeros_like(ids)
        of_picture = [FILM if picture.is_film else IMAGE for picture in pictures]
        counts = torch.tensor([picture.num_tokens for picture in pictures], dtype=torch.long)
        kinds[ids == self._image_token_id] = torch.tensor(of_picture, dtype=torch.long).repeat_interleave(counts)
        merge = self.visual.spatial_merge_size
        grids = [[1, picture.rows * merge, picture.columns * merge] for picture in pictures if not picture.is_film]
        films = _films(pictures)
        whole_films = [[len(film), film[0].rows * merge, film[0].columns * merge] for film in films]
        positions, _ = self.whole.model.get_rope_index(
            ids[None],
            mm_token_type_ids=kinds[None],
            image_grid_thw=torch.tensor(grids) if grids else None,
            video_grid_thw=torch.tensor(whole_films) if films else None,
            second_per_grid_ts=torch.tensor([film[0].seconds for film in films]) if films else None,
        )
        return positions[:, 0]  # type: ignore[no-any-return]

    def decoder_arguments(self, input_ids: Tensor, positions: Tensor | None, added: Tensor | None) -> dict[str, Any]:
        """Return positions, and what is added to visual tokens."""
        return {"position_ids": positions, "prompt": self.prompt(input_ids, [""] * len(input_ids), added=added)}


def _films(pictures: Sequence[QwenPicture]) -> list[list[QwenPicture]]:
    """Return the temporal patches of each video."""
    films: list[list[QwenPicture]] = []
    for picture in pictures:
        if picture.number == 0:
            films.append([])
        if picture.is_film:
            films[-1].append(picture)
    return films
