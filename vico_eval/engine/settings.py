"""The settings of an engine."""

from __future__ import annotations

from dataclasses import dataclass

from vico_eval.errors import ConfigError

TRANSFORMERS, VLLM = ENGINES = ("transformers", "vllm")

OF_VLLM_HERE = ("tensor_parallel_size", "gpu_memory_utilization", "max_model_len")
"""Fields that only vLLM in this process has."""


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """The checkpoint and the settings of an engine; every field is also a model argument in lmms-eval."""

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

    engine: str = "transformers"
    """What decodes: transformers, or vllm, which takes prompts as embeddings and has no room for decoder methods."""

    server: str | None = None
    """Addresses of vLLM servers, http://a:8000 or several joined by /, or a file with one a line. Without any,
    engine=vllm runs vLLM in this process."""

    tensor_parallel_size: int | None = None
    """GPUs over which vLLM in this process spreads the decoder; one by default."""

    gpu_memory_utilization: float | None = None
    """Share of a GPU's memory that vLLM in this process takes, the vision encoder's left out; by default 0.8."""

    max_model_len: int | None = None
    """Tokens of a prompt with its answer that vLLM in this process is started for; by default the checkpoint's."""

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

    min_pixels: int | None = None
    max_pixels: int | None = None
    """Pixels of an image where the checkpoint resizes images to its patches (Qwen-VL); by default the benchmark's
    limits, else the checkpoint's."""

    num_frames: int | None = None
    """Frames of a video. By default InternVL shows 64, one tile each, and Qwen-VL 2 a second."""

    fps: float | None = None
    """Frames a second of a video that Qwen-VL is shown, in the place of num_frames."""

    label_images: bool = True
    """Introduce several images as `Image-1:`, `Image-2:`, ... on InternVL; otherwise in plain order, as Qwen-VL's
    template has them in any case."""

    system_prompt: str | None = None
    """Instead of the checkpoint's own."""

    thinking: bool = False
    """InternVL3.5's thinking mode. Answers are sampled as InternVL's authors do where a task doesn't say otherwise;
    a task's stop strings are left out, since they would end a thought."""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"batch_size is {self.batch_size}; expected at least 1.")
        if self.engine not in ENGINES:
            raise ConfigError(f"engine is {self.engine!r}; expected {' or '.join(ENGINES)}.")
        if self.engine != VLLM and self.server is not None:
            raise ConfigError(f"got server= with engine={self.engine}; servers are of engine=vllm.")
        started_here = self.engine == VLLM and self.server is None
        if not started_here and (given := [name for name in OF_VLLM_HERE if getattr(self, name) is not None]):
            raise ConfigError(
                f"got {', '.join(given)}, which {'is' if len(given) == 1 else 'are'} of vLLM in this process; a server "
                "is started with its own. Leave it out, or pass engine=vllm without server=."
            )
        if self.tensor_parallel_size is not None and self.tensor_parallel_size < 1:
            raise ConfigError(f"tensor_parallel_size is {self.tensor_parallel_size}; expected at least 1.")
        if self.gpu_memory_utilization is not None and not 0 < self.gpu_memory_utilization <= 1:
            raise ConfigError(f"gpu_memory_utilization is {self.gpu_memory_utilization}; expected a share in (0, 1].")
        if self.max_model_len is not None and self.max_model_len < 1:
            raise ConfigError(f"max_model_len is {self.max_model_len}; expected at least 1.")
