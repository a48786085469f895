"""Qwen-VL's prompts and images, by the checkpoint's own chat template and processors.

In a prepared prompt, one `<|image_pad|>` stands for each image or temporal patch of a video. The id of visual tokens
doesn't matter, because the model's input is embeddings; videos are distinguished by their pictures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from transformers.video_utils import VideoMetadata

from vico_eval.errors import ConfigError, MediaError
from vico_eval.families.family import Picture, Prompting, SizeLimits, Slot, Stand, Strip
from vico_eval.families.frame_choice import Clip
from vico_eval.families.qwen_vl.pictures import picture_of
from vico_eval.methods.interface import ImagePixels, PixelPart

if TYPE_CHECKING:
    from PIL import Image

    from vico_eval.methods.interface import ResolutionPart

VISION_START, VISION_END = "<|vision_start|>", "<|vision_end|>"
TURN_START, TURN_END = "<|im_start|>", "<|im_end|>"

FRAMES_A_SECOND = 2.0
"""Frames per second of a video, and assumed rate of one without, if the video processor doesn't set it (Qwen2.5-VL).
Source: `FPS` in the authors' qwen-vl-utils.
"""


class PixelLimits(NamedTuple):
    """Limits on an image's pixels."""

    fewest: int
    most: int


class QwenPrompting(Prompting):
    """A checkpoint's chat template and processors."""

    end = f"{TURN_END}\n"
    stop = TURN_END

    def __init__(self, processor: Any) -> None:
        """
        Args:
            processor: transformers' `Qwen2_5_VLProcessor` or `Qwen3VLProcessor`.
        """
        self._processor = processor
        self._images, self._videos = processor.image_processor, processor.video_processor
        self._side = self._images.patch_size * self._images.merge_size
        self.image_token = self.slot = processor.image_token
        self.control = (VISION_START, VISION_END, processor.image_token, processor.video_token, TURN_START, TURN_END)
        self.always_thinks = self.render([("user", "")], None).rstrip().endswith("<think>")

    def render(self, turns: Sequence[tuple[str, str]], system: str | None) -> str:
        """Return the conversation in the checkpoint's template, with its default if there is no system message."""
        messages = [{"role": role, "content": text} for role, text in turns]
        if system is not None:
            messages.insert(0, {"role": "system", "content": system})
        text: str = self._processor.tokenizer.apply_chat_template(
            messages, chat_template=self._processor.chat_template, tokenize=False, add_generation_prompt=True
        )
        return text

    def slot_ids(self, vocabulary: Mapping[str, int]) -> Slot:
        """Return the id of `<|image_pad|>`, which visual tokens replace."""
        if missing := [token for token in self.control if token not in vocabulary]:
            raise ConfigError(
                f"The tokenizer has no token {', '.join(missing)}; expected the tokenizer of a Qwen-VL checkpoint."
            )
        return Slot(ids=(int(vocabulary[self.slot]),), before=(), after=())

    def image(self, number: int | None, *, is_inline: bool = False) -> Stand:
        """Return the template's image text: inline, without a number."""
        return Stand(f"{VISION_START}{self.slot}{VISION_END}")

    def limits(self, asked: SizeLimits, num_images: int) -> PixelLimits:
        """Return the caller's limits or the checkpoint's; limits on tiles don't apply.

        Raises:
            ConfigError: there are fewer pixels than in a visual token, or the maximum is below the minimum.
        """
        size = self._images.size
        fewest, most = asked.min_pixels or size["shortest_edge"], asked.max_pixels or size["longest_edge"]
        if most < self._side**2:
            raise ConfigError(
                f"Got max_pixels={most}; one visual token of these checkpoints is {self._side} x {self._side} px, so "
                f"expected at least {self._side**2}."
            )
        if most < fewest:
            whose = "" if asked.min_pixels else " of the checkpoint"
            raise ConfigError(
                f"max_pixels={most} is less than min_pixels={fewest}{whose}. Pass min_pixels={most} or less."
            )
        return PixelLimits(fewest, most)

    def cut(
        self, image: Image.Image, limits: PixelLimits, resolution: ResolutionPart | PixelPart | None = None
    ) -> Picture:
        """Resize to whole visual tokens within the limits, which a part may lower.

        Raises:
            MediaError: the image's aspect ratio is above 200.
        """
        width, height = image.size
        if max(width, height) > 200 * min(width, height):
            raise MediaError(
                f"An image of {width} x {height} px is more than 200 times as long as it is wide, which the "
                "checkpoint's image processor does not take. Cut it."
            )
        if resolution is not None:
            assert isinstance(resolution, PixelPart), "Method.check refuses a part that cuts tiles"
            limits = self._lowered(image, limits, resolution)
        cut = self._images(
            images=[image],
            size={"shortest_edge": limits.fewest, "longest_edge": limits.most},
            do_rescale=False,
            do_normalize=False,
            return_tensors="pt",
        )
        (grid,) = cut["image_grid_thw"].tolist()
        return picture_of(cut["pixel_values"], (grid[1], grid[2]), self._images.merge_size)

    def _lowered(self, image: Image.Image, limits: PixelLimits, part: PixelPart) -> PixelLimits:
        width, height = image.size

        def num_tokens(most: int) -> int:
            bounds = {"min_pixels": min(limits.fewest, most), "max_pixels": most}
            patches = self._images.get_number_of_image_patches(height, width, bounds)
            return int(patches // self._images.merge_size**2)

        most = part.max_pixels(ImagePixels(width, height, self._side, limits.most, num_tokens))
        return PixelLimits(min(limits.fewest, most), most)

    def cut_frame(self, frame: Image.Image) -> Picture:
        """Process a frame like an image, with the checkpoint's own limits."""
        return self.cut(frame, self.limits(SizeLimits(), 1))

    def choose_frames(
        self,
        total: int,
        fps: float | None,
        num_frames: int | None,
        rate: float | None = None,
        *,
        first: int = 0,
        last: int | None = None,
    ) -> list[int]:
        """Choose frames like the checkpoint's video processor.

        Raises:
            MediaError: there are fewer frames than in a temporal patch.
        """
        last = total - 1 if last is None else min(last, total - 1)
        first = min(max(first, 0), last)
        there, together = last - first + 1, self._videos.temporal_patch_size
        self._check_length(there)
        metadata = VideoMetadata(total_num_frames=there, fps=fps or FRAMES_A_SECOND)
        if num_frames is None:
            own = FRAMES_A_SECOND if self._videos.fps is None else self._videos.fps
            rate = own if rate is None else rate
            indices = self._videos.sample_frames(metadata=metadata, fps=rate)
        else:
            most = max(together, min(num_frames, there) // together * together)
            indices = self._videos.sample_frames(metadata=metadata, num_frames=most)
        return [first + int(index) for index in indices]

    def show(self, clip: Clip) -> Strip:
        """Return pictures in which the frames of a temporal patch share visual tokens. Qwen3-VL's text has the time of
        each patch.

        Raises:
            MediaError: there are fewer frames than in a temporal patch.
        """
        self._check_length(len(clip.frames))
        metadata = VideoMetadata(
            total_num_frames=clip.total, fps=clip.fps or FRAMES_A_SECOND, frames_indices=list(clip.places)
        )
        cut = self._videos(
            videos=[np.stack([np.asarray(frame) for frame in clip.frames])],
            video_metadata=[metadata],
            do_sample_frames=False,
            do_rescale=False,
            do_normalize=False,
            return_tensors="pt",
        )
        ((patches, rows, columns),) = cut["video_grid_thw"].tolist()
        seconds = self._videos.temporal_patch_size / metadata.sampled_fps
        merge = self._videos.merge_size
        pictures: list[Picture] = [
            picture_of(part, (rows, columns), merge, number=number, seconds=seconds)
            for number, part in enumerate(cut["pixel_values_videos"].split(rows * columns))
        ]
        inputs = {"video_grid_thw": torch.tensor([[patches, rows, columns]]), "video_metadata": [metadata]}
        text: str = self._processor.replace_video_token(inputs, 0)
        text = text.replace(self._processor.video_token * (rows * columns // merge**2), self.slot)
        return Strip(pictures, Stand(f"{VISION_START}{text}{VISION_END}"))

    def _check_length(self, num_frames: int) -> None:
        if num_frames < self._videos.temporal_patch_size:
            raise MediaError(
                f"A video shows {num_frames} frame, and the checkpoint's encoder takes "
                f"{self._videos.temporal_patch_size} at once (its temporal patch). Show it as an image, or a longer "
                "stretch of it."
            )
