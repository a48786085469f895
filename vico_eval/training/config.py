"""The configuration of a training run: one YAML file with a closed schema."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from vico_eval.training.config_files import MOST_WIDE, SEEDS_END, ClosedConfig, read_config
from vico_eval.training.data.config import DataConfig

_Beta = Annotated[float, Field(ge=0, lt=1)]

LowSharePer = Literal["image", "sample"]
"""What draws a share of low tiles in stage 1."""

MOST_AHEAD = 10_000_000
"""Samples of a window, which are in memory with what is said in them."""


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
    """Of AdamW's two averages: the share that stays at every step."""

    clip_norm: float = Field(default=1.0, gt=0)

    @model_validator(mode="after")
    def _falls(self) -> OptimizerSettings:
        if self.final_learning_rate > self.learning_rate:
            raise ValueError(
                f"final_learning_rate {self.final_learning_rate} is above learning_rate {self.learning_rate}"
            )
        return self


class Saving(ClosedConfig):
    """When resumable checkpoints are written and which stay."""

    every: int = Field(default=200, ge=1)
    """Steps between two; the last step and SIGTERM write one too."""

    keep_best: int = Field(default=1, ge=0)
    """Checkpoints with the lowest held-out loss that stay, besides the last one."""


class RunConfig(ClosedConfig):
    """What both stages share."""

    checkpoint: str
    """The base model: a folder, a hub id or a built-in one. It is the reference, and where stage 1 starts."""

    out: Path
    """Folder of checkpoints, logs and the finished model."""

    data: DataConfig
    seed: int = Field(default=0, ge=0, lt=SEEDS_END)
    global_batch: int = Field(ge=1)
    """Samples a step."""

    micro_batch: int = Field(default=1, ge=1)
    """Samples that are computed together on one device; the rest of a step's batch is accumulated."""

    precision: Literal["bf16", "fp32"] = "bf16"
    """What is computed in; trained weights and the optimizer are float32 in either."""

    attn_implementation: Literal["sdpa", "flash_attention_2", "eager"] = "sdpa"
    logit_chunk: int = Field(default=256, ge=1)
    """Answer tokens whose logits are in memory at once."""

    reference: Literal["copy", "int8"] = "copy"
    """How the frozen decoder is kept: as it is, or with its linear layers in 8 bits (torchao), at half the memory."""

    trackers: list[Literal["tensorboard", "wandb"]] | None = None
    """What else is told of every step, besides `log.jsonl`; null is TensorBoard where it is installed."""

    saving: Saving = Saving()
    held_out_samples: int = Field(default=256, ge=1)
    """Samples of the held-out report, and of the held-out loss at every checkpoint."""

    def identity(self) -> dict[str, Any]:
        """What a checkpoint has to agree in: everything but where it lies, how it is saved and how it is shown."""
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
    """The new low connector alone, everything else frozen; null where the checkpoint has one that was trained."""

    train: OptimizerSettings

    train_vision: bool = True
    """Whether the vision encoder is trained too, as InternVL3.5's report has it. Frozen, its output is computed once
    for policy and reference."""

    low_share_per: LowSharePer = "image"
    """What draws a share xi of low tiles: each image (equation 1 of the paper; a video's frames draw one together), or
    all tiles of a sample together."""

    lora: LoraSettings | None = None
    """Adapters in the decoder instead of training all of it; the high connector and the vision encoder then stay as
    they are."""

    gradient_checkpointing: bool = True

    @model_validator(mode="after")
    def _vision_stays_with_adapters(self) -> ConsistencyConfig:
        if self.lora is not None and self.train_vision:
            raise ValueError(
                "with lora the reference is the policy without its adapters, so both have one vision encoder, which "
                "has to stay as it is; set train_vision: false"
            )
        return self


class RouterConfig(RunConfig):
    """Stage 2."""

    policy: str
    """What stage 1 made: a folder or a hub id. Nothing of it changes but its router."""

    level: Literal["tile", "image"] = "tile"
    """What a decision is about; `image` trains the router of the image-level ablation."""

    train: OptimizerSettings
    percentile: float = Field(default=60, gt=0, lt=100)
    """k of the sliding window: a tile whose loss ratio is at or above it is labelled *keep*."""

    window: int = Field(default=1024, ge=2)
    """Ratios that the percentile is taken over."""

    burn_in: int = Field(default=64, ge=0)
    """Ratios that only fill the window before the first label: a percentile of a few says little."""

    epsilon: float = Field(default=1e-4, gt=0)
    """Added to both losses of a ratio, in nats: an answer that equals the reference's would make it infinite."""

    router_dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of values that the router's gating blocks drop in training, as those of the released class do."""

    @model_validator(mode="after")
    def _burn_in_ends(self) -> RouterConfig:
        if self.burn_in >= self.window:
            raise ValueError(
                f"burn_in {self.burn_in} is not below window {self.window}, so no tile would ever get a label"
            )
        return self


def read_consistency(path: Path) -> ConsistencyConfig:
    """Stage 1's configuration; raises ConfigError as `read_config`."""
    return read_config(path, ConsistencyConfig, "models/training/consistency-1b.yaml")


def read_router(path: Path) -> RouterConfig:
    """Stage 2's configuration; raises ConfigError as `read_config`."""
    return read_config(path, RouterConfig, "models/training/router-1b.yaml")
