"""The configuration of a training run: one YAML file with a closed schema."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from vico_eval.training.config_files import MOST_WIDE, SEEDS_END, ClosedConfig, read_config
from vico_eval.training.data.config import DataConfig

_Beta = Annotated[float, Field(ge=0, lt=1)]

LowSharePer = Literal["image", "sample"]
"""The unit for which stage 1 draws a share of low tiles."""

MOST_AHEAD = 10_000_000
"""The largest number of samples in a window; their texts are held in memory."""


class LoraSettings(ClosedConfig):
    """Low-rank adapters on the decoder's linear layers instead of its weights (peft)."""

    rank: int = Field(default=16, ge=1, le=MOST_WIDE)
    alpha: int = Field(default=32, ge=1)
    dropout: float = Field(default=0.05, ge=0, lt=1)


class OptimizerSettings(ClosedConfig):
    """AdamW: linear warm-up, then a cosine from `learning_rate` to `final_learning_rate`."""

    steps: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    final_learning_rate: float = Field(default=0.0, ge=0)
    warmup_steps: int = Field(default=0, ge=0)
    weight_decay: float = Field(default=0.05, ge=0)
    betas: tuple[_Beta, _Beta] = (0.9, 0.999)
    """Decay rates of AdamW's two moving averages."""

    clip_norm: float = Field(default=1.0, gt=0)

    @model_validator(mode="after")
    def _falls(self) -> OptimizerSettings:
        if self.final_learning_rate > self.learning_rate:
            raise ValueError(
                f"final_learning_rate {self.final_learning_rate} is above learning_rate {self.learning_rate}"
            )
        return self


class Saving(ClosedConfig):
    """When resumable checkpoints are written and which of them are kept."""

    every: int = Field(default=200, ge=1)
    """Steps between two checkpoints. The last step and SIGTERM also write one."""

    keep_best: int = Field(default=1, ge=0)
    """Number of checkpoints to keep for their low held-out loss, besides the most recent ones."""


class RunConfig(ClosedConfig):
    """The settings that both stages share."""

    checkpoint: str
    """The base model: a folder, a hub id or a built-in name. It is the reference and the starting point of stage 1."""

    out: Path
    """The folder for checkpoints, logs and the finished model."""

    data: DataConfig
    seed: int = Field(default=0, ge=0, lt=SEEDS_END)
    global_batch: int = Field(ge=1)
    """Samples per step."""

    micro_batch: int = Field(default=1, ge=1)
    """Samples computed together on one device; gradients are accumulated over the rest of the step's batch."""

    precision: Literal["bf16", "fp32"] = "bf16"
    """The compute precision. Trained weights and the optimizer state are float32 in both cases."""

    attn_implementation: Literal["sdpa", "flash_attention_2", "eager"] = "sdpa"
    logit_chunk: int = Field(default=256, ge=1)
    """Answer tokens whose logits are in memory at once."""

    reference: Literal["copy", "int8"] = "copy"
    """How the frozen decoder is stored: unchanged, or with 8-bit linear layers (torchao) at half the memory."""

    trackers: list[Literal["tensorboard", "wandb"]] | None = None
    """Trackers that receive every step in addition to `log.jsonl`. Null means TensorBoard if it is installed."""

    saving: Saving = Saving()
    held_out_samples: int = Field(default=256, ge=1)
    """Samples used for the held-out report and for the held-out loss at every checkpoint."""

    def identity(self) -> dict[str, Any]:
        """Return the settings that a checkpoint must match: all except location, saving, memory and display."""
        free = {"out", "saving", "logit_chunk", "held_out_samples", "gradient_checkpointing", "trackers"}
        return self.model_dump(mode="json", exclude=free)

    @model_validator(mode="after")
    def _kernel_can_compute(self) -> RunConfig:
        if self.precision == "fp32" and self.attn_implementation == "flash_attention_2":
            raise ValueError("flash_attention_2 can't compute in fp32; use precision bf16, or attn_implementation sdpa")
        return self

    @model_validator(mode="after")
    def _window_fits(self) -> RunConfig:
        if self.global_batch * self.data.window_steps > MOST_AHEAD:
            raise ValueError(
                f"global_batch {self.global_batch} x data.window_steps {self.data.window_steps} samples are sorted "
                f"together; expected at most {MOST_AHEAD}"
            )
        return self


class ConsistencyConfig(RunConfig):
    """Stage 1."""

    warmup: OptimizerSettings | None
    """Training of the new low connector alone, with everything else frozen. Null if the checkpoint's low connector is
    already trained."""

    train: OptimizerSettings

    train_vision: bool = True
    """Whether to train the vision encoder too, as in InternVL3.5's report. If it is frozen, its output is computed once
    for both policy and reference."""

    low_share_per: LowSharePer = "image"
    """Whether a share xi of low tiles is drawn for each image (equation 1 of the paper; a video's frames count as one
    image) or once for all tiles of a sample."""

    lora: LoraSettings | None = None
    """Adapters for the decoder, instead of training all of its weights. The high connector and the vision encoder are
    then frozen."""

    gradient_checkpointing: bool = True

    @model_validator(mode="after")
    def _vision_stays_with_adapters(self) -> ConsistencyConfig:
        if self.lora is not None and self.train_vision:
            raise ValueError(
                "with lora the reference is the policy without its adapters, so both share one vision encoder, which "
                "must stay frozen; set train_vision: false"
            )
        return self


class RouterConfig(RunConfig):
    """Stage 2."""

    policy: str
    """The model from stage 1: a folder or a hub id. Only its router is trained."""

    level: Literal["tile", "image"] = "tile"
    """The unit of a routing decision. `image` trains the router of the image-level ablation."""

    train: OptimizerSettings
    percentile: float = Field(default=60, gt=0, lt=100)
    """k, the percentile of the sliding window. A tile whose loss ratio is at or above it is labelled *keep*."""

    window: int = Field(default=1024, ge=2)
    """Number of recent loss ratios over which the percentile is taken."""

    burn_in: int = Field(default=64, ge=0)
    """Number of ratios that only fill the window, before the first label; a percentile of few values is unreliable."""

    epsilon: float = Field(default=1e-4, gt=0)
    """Value in nats added to both losses of a ratio. Without it, an answer equal to the reference's would make the
    ratio infinite."""

    router_dropout: float = Field(default=0.1, ge=0, lt=1)
    """Dropout rate of the router's gating blocks during training, as in the released class."""

    @model_validator(mode="after")
    def _burn_in_ends(self) -> RouterConfig:
        if self.burn_in >= self.window:
            raise ValueError(
                f"burn_in {self.burn_in} is not below window {self.window}, so no tile would ever be labelled"
            )
        return self


def read_consistency(path: Path) -> ConsistencyConfig:
    """Read stage 1's configuration; raises ConfigError as `read_config` does."""
    return read_config(path, ConsistencyConfig, "models/training/consistency-1b.yaml")


def read_router(path: Path) -> RouterConfig:
    """Read stage 2's configuration; raises ConfigError as `read_config` does."""
    return read_config(path, RouterConfig, "models/training/router-1b.yaml")
