"""What an engine is opened with."""

from __future__ import annotations

from dataclasses import dataclass

from vico_eval.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """What to load and how to ask it; every field is also a model argument in lmms-eval."""

    pretrained: str
    """A folder, a hub id (`OpenGVLab/InternVL3_5-8B-Flash`) or a built-in checkpoint (`vico-tiny`)."""

    method: str = "vanilla"
    """Name of a method, or several joined by `+`."""

    allow_pickle: bool = False
    """Read weights from `.bin` files where there are no safetensors, as plain tensors only (torch's `weights_only`)."""

    flash_from: str | None = None
    """ViCO checkpoint that gives base weights its low connector, and decides by its own encoder and router."""

    dtype: str = "auto"
    """float32, bfloat16, float16, or auto: the checkpoint's own on a GPU, float32 on the CPU (few compute in bf16)."""

    device: str | None = None
    """cpu, cuda, cuda:1, ...; by default a GPU where there is one."""

    device_map: str | None = None
    """auto, balanced, ...: spreads one model over several GPUs; instead of `device`."""

    attn_implementation: str = "sdpa"
    """sdpa, flash_attention_2 or eager."""

    batch_size: int = 1
    """Documents answered together."""

    max_tiles: int | None = None
    """Tiles of an image, thumbnail not counted; by default the benchmark's limit, else the checkpoint's."""

    total_max_tiles: int | None = None
    """Tiles that the images of one document share; by default the benchmark's limit."""

    tiles: str | int | None = None
    """Columns x rows, as in 2x2, of tiles that every image is resized to, with the thumbnail of the checkpoint; in the
    place of max_tiles, total_max_tiles and the benchmark's limits, by which an image's shape chooses."""

    num_frames: int | None = None
    """Frames of a video, one tile each; by default the checkpoint's, 64 in every released one."""

    label_images: bool = True
    """Introduce several images as `Image-1:`, `Image-2:`, ...; otherwise in plain order."""

    system_prompt: str | None = None
    """Instead of the checkpoint's own."""

    thinking: bool = False
    """InternVL3.5's thinking mode. Answers are sampled as InternVL's authors do where a task doesn't say otherwise;
    a task's stop strings are left out, since they would end a thought."""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"batch_size is {self.batch_size}; expected at least 1.")
