"""The settings of an engine."""

from __future__ import annotations

from dataclasses import dataclass

from vico_eval.errors import ConfigError

TRANSFORMERS, VLLM = ENGINES = ("transformers", "vllm")

OF_VLLM_HERE = ("tensor_parallel_size", "gpu_memory_utilization", "max_model_len")
"""Fields that apply only to vLLM in this process."""


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """The checkpoint and the settings of an engine; every field is also a model argument in lmms-eval."""

    pretrained: str
    """A folder, a hub id (`OpenGVLab/InternVL3_5-8B-Flash`) or a built-in checkpoint (`vico-tiny`)."""

    method: str = "vanilla"
    """Name of a method, or several joined by `+`."""

    allow_pickle: bool = False
    """Read weights from `.bin` files if there are no safetensors, as plain tensors only (torch's `weights_only`)."""

    flash_from: str | None = None
    """ViCO checkpoint that supplies the low connector to a base model, and routes by its own encoder and router."""

    dtype: str = "auto"
    """float32, bfloat16, float16, or auto: the checkpoint's own on a GPU, float32 on the CPU (few compute in bf16)."""

    device: str | None = None
    """cpu, cuda, cuda:1, ...; by default a GPU if available."""

    device_map: str | None = None
    """auto, balanced, ...: distributes the model over several GPUs; replaces `device`."""

    engine: str = "transformers"
    """The decoder's engine: transformers, or vllm, which accepts prompts as embeddings but no decoder methods."""

    server: str | None = None
    """Addresses of vLLM servers: http://a:8000, several joined by /, or a file with one per line. Without servers,
    engine=vllm runs vLLM in this process."""

    tensor_parallel_size: int | None = None
    """Number of GPUs for the decoder with vLLM in this process; by default 1."""

    gpu_memory_utilization: float | None = None
    """Share of a GPU's memory for vLLM in this process, which must leave room for the vision encoder; by default
    0.8."""

    max_model_len: int | None = None
    """Maximum number of tokens of a prompt and its answer for vLLM in this process; by default the checkpoint's."""

    attn_implementation: str = "sdpa"
    """sdpa, flash_attention_2 or eager."""

    batch_size: int = 1
    """Number of documents per batch."""

    max_tiles: int | None = None
    """Maximum number of tiles per image, without the thumbnail; by default the benchmark's limit, or else the
    checkpoint's."""

    total_max_tiles: int | None = None
    """Maximum number of tiles of all images of a document; by default the benchmark's limit."""

    tiles: str | int | None = None
    """Columns x rows of tiles that every image is resized to, such as 2x2, plus the checkpoint's thumbnail. Replaces
    max_tiles, total_max_tiles and the benchmark's limits, with which the aspect ratio decides."""

    min_pixels: int | None = None
    max_pixels: int | None = None
    """Limit on an image's pixels for checkpoints that resize images to their patches (Qwen-VL); by default the
    benchmark's limit, or else the checkpoint's."""

    num_frames: int | None = None
    """Number of frames of a video. By default InternVL sees 64, one tile each, and Qwen-VL 2 per second."""

    fps: float | None = None
    """Frames per second of a video for Qwen-VL, instead of num_frames."""

    label_images: bool = True
    """Label several images as `Image-1:`, `Image-2:`, ... on InternVL. Qwen-VL's template never labels them."""

    system_prompt: str | None = None
    """System message that replaces the checkpoint's."""

    thinking: bool = False
    """InternVL3.5's thinking mode. Answers are sampled with the authors' settings unless a task sets its own. A task's
    stop strings are ignored, because they could end a thought."""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"batch_size is {self.batch_size}; expected at least 1.")
        if self.engine not in ENGINES:
            raise ConfigError(f"engine is {self.engine!r}; expected {' or '.join(ENGINES)}.")
        if self.engine != VLLM and self.server is not None:
            raise ConfigError(f"got server= with engine={self.engine}; servers need engine=vllm.")
        started_here = self.engine == VLLM and self.server is None
        if not started_here and (given := [name for name in OF_VLLM_HERE if getattr(self, name) is not None]):
            raise ConfigError(
                f"got {', '.join(given)}, which {'is' if len(given) == 1 else 'are'} for vLLM in this process; a "
                "server has its own settings. Leave it out, or pass engine=vllm without server=."
            )
        if self.tensor_parallel_size is not None and self.tensor_parallel_size < 1:
            raise ConfigError(f"tensor_parallel_size is {self.tensor_parallel_size}; expected at least 1.")
        if self.gpu_memory_utilization is not None and not 0 < self.gpu_memory_utilization <= 1:
            raise ConfigError(f"gpu_memory_utilization is {self.gpu_memory_utilization}; expected a share in (0, 1].")
        if self.max_model_len is not None and self.max_model_len < 1:
            raise ConfigError(f"max_model_len is {self.max_model_len}; expected at least 1.")
